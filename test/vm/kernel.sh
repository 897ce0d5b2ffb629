# Sourced by run.sh: the kernel that the machine of the tests boots, and the small root that it
# begins with. Both are kept in $cache; after the first time nothing is fetched any more.

# A Debian package manager of our own: lists, cache and packages of this machine stay untouched.
# Its sources are the machine's, and the backports of the same mirror.
private_apt() {
  local apt=$cache/apt
  mkdir -p "$apt/lists/partial" "$apt/archives/partial" || return 1
  [[ -s $apt/sources.list ]] || apt_sources >"$apt/sources.list" || return 1
  cat >"$apt/apt.conf" <<END
Dir::State::Lists "$apt/lists";
Dir::Cache "$apt";
Dir::Cache::archives "$apt/archives";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "-";
APT::Sandbox::User "root";
Acquire::Languages "none";
END
  export APT_CONFIG=$apt/apt.conf
  local day=1440
  [[ -n $(find "$apt/lists" -maxdepth 1 -name '*_Packages*' -mmin -$day) ]] && return
  apt-get update >"$apt/update.log" 2>&1 && return
  sed -i '/-backports main$/d' "$apt/sources.list" # a mirror without them
  apt-get update >"$apt/update.log" 2>&1 && return
  tail -n 5 "$apt/update.log" >&2
  rm -f "$apt/sources.list"
  return 1
}

release() { (. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}"); }

apt_sources() {
  local suite uri
  suite=$(release)
  uri=$(apt-get indextargets --format '$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)' \
    'Created-By: Packages' |
    awk -F'|' -v suite="$suite" '$1 == "Debian" && $2 == suite && $3 == "main" { print $4; exit }')
  [[ -n $uri ]] || uri=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    awk -v suite="$suite" '
      /^URIs:/ { uri = $2 }
      /^Suites:/ && index($0, suite) && uri != "" { print uri; exit }
      /^deb / { for (i = 2; i < NF; i++)
        if ($i ~ /^(http|https|mirror|file|cdrom)/ && $(i + 1) == suite) { print $i; exit } }')
  [[ -n $uri ]] || return 1
  local signed=/usr/share/keyrings/debian-archive-keyring.gpg
  echo "deb [signed-by=$signed] $uri $suite main"
  echo "deb [signed-by=$signed] $uri $suite-backports main"
}

# The newest cloud kernel of the mirror.
kernel_package() {
  local package=linux-image-cloud-amd64
  apt-cache show "$package" 2>/dev/null | awk '/^Depends:/ { print $2 }' | sort -V | tail -n 1 |
    grep . && return
  apt-cache depends "$package" 2>/dev/null | awk '/Depends: linux-image-[0-9]/ { print $2; exit }'
}

fetch_kernel() { # FOLDER: prints the package's file
  (
    private_apt || exit 1
    package=$(kernel_package)
    [[ -n $package ]] || exit 1
    say "fetching $package"
    mkdir -p "$1" && cd "$1" && apt-get download "$package" >&2 2>"$1/log" || exit 1
    ls -t "$1"/*.deb | head -n 1
  )
}

# Prints the folder with vmlinuz, version and modules/.
prepare_kernel() {
  local current=$cache/kernel/current package version new
  [[ -s $current/vmlinuz ]] && { cd "$current" && pwd -P; return; }
  new=$cache/kernel/.new
  rm -rf "$new"
  mkdir -p "$new/x" "$new/modules/lib/modules"
  package=$(fetch_kernel "$new/package") || return 1
  version=$(dpkg-deb -f "$package" Package)
  version=${version#linux-image-}
  version=${version%-unsigned}
  dpkg -x "$package" "$new/x" || return 1
  mv "$new/x/lib/modules/$version" "$new/modules/lib/modules/" 2>/dev/null ||
    mv "$new/x/usr/lib/modules/$version" "$new/modules/lib/modules/" || return 1
  plain_modules "$new/modules/lib/modules/$version" || return 1
  "$busybox" depmod -b "$new/modules" "$version" 2>/dev/null || return 1
  mv "$new/x/boot/vmlinuz-$version" "$new/vmlinuz" || return 1
  echo "$version" >"$new/version"
  rm -rf "$new/x" "$new/package" "${cache:?}/kernel/$version"
  mv "$new" "$cache/kernel/$version" || return 1
  ln -sfn "$version" "$current"
  echo "$cache/kernel/$version"
}

plain_modules() { # no decompressor is needed in the machine then
  cd "$1" || return 1
  find . -name '*.ko.xz' -print0 | xargs -0 -r -n 64 -P "$(nproc)" "$busybox" unxz &&
    find . -name '*.ko.zst' -print0 | xargs -0 -r zstd -q -d --rm
}

boot_modules=(virtio_pci virtio_console virtiofs overlay virtio_blk)

# Names of module files, and of what they need.
closure_of() { # FOLDER NAME...
  local folder=$1 seen=' ' line
  shift
  local queue=("$@")
  while ((${#queue[@]} > 0)); do
    line=$(grep -E "(^|/)${queue[0]}\.ko:" "$folder/modules.dep" | head -n 1)
    queue=("${queue[@]:1}")
    [[ -z $line || $seen == *" ${line%%:*} "* ]] && continue
    seen+="${line%%:*} "
    local need
    for need in ${line#*:}; do
      need=${need##*/}
      queue+=("${need%.ko}")
    done
  done
  echo "$seen"
}

# Prints the archive of the first root: busybox, its modules, guest-init.sh.
build_initrd() { # KERNEL
  local version key archive new modules module
  version=$(<"$1/version")
  key=$( (cat "$here/guest-init.sh"; stat -L -c '%s %Y' "$busybox") | sha256sum | cut -c 1-16)
  archive=$cache/initrd-$version-$key.cpio
  if [[ ! -s $archive ]]; then
    new=$cache/.initrd
    rm -rf "$new"
    mkdir -p "$new/bin" "$new/lib/modules/$version"
    cp -L "$busybox" "$new/bin/busybox"
    install -m 755 "$here/guest-init.sh" "$new/init"
    modules=$1/modules/lib/modules/$version
    for module in $(closure_of "$modules" "${boot_modules[@]}"); do
      mkdir -p "$new/lib/modules/$version/${module%/*}"
      cp "$modules/$module" "$new/lib/modules/$version/$module"
    done
    "$busybox" depmod -b "$new" "$version" 2>/dev/null
    archive_of "$new" >"$archive.new" || return 1
    mv "$archive.new" "$archive"
    rm -rf "$new"
  fi
  echo "$archive"
}

archive_of() { (cd "$1" && find . | "$busybox" cpio -o -H newc 2>/dev/null); }
