{
  # The release build and the prebuilt packages. Developers build with CMakeLists.txt; both read
  # src-native/native.gypi. Warnings are errors only there: a newer compiler may know more of them.
  # OpenSSL and zlib: Node's own headers (node-gyp adds them) and Node's own symbols, so no -l.
  "includes": ["src-native/native.gypi"],
  "targets": [
    {
      "target_name": "hastd",
      "sources": ["<@(hast_core_sources)", "<@(hast_addon_sources)"],
      "include_dirs": ["src-native"],
      "defines": [
        "<@(hast_defines)",
        "NAPI_VERSION=9",
        "NAPI_DISABLE_CPP_EXCEPTIONS",
        "NODE_ADDON_API_DISABLE_DEPRECATED"
      ],
      "cflags_cc!": ["-std=gnu++17", "-std=gnu++20"],
      "cflags_cc": [
        "<@(hast_cflags)",
        "-isystem<!(node -p \"require('node:path').dirname(require.resolve('node-addon-api/package.json'))\")"
      ],
      "libraries": ["-l:liburing.a"],
      "ldflags": ["-static-libstdc++", "-Wl,--exclude-libs,ALL"]
    }
  ]
}
