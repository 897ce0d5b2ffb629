#pragma once

/// What a worker keeps of the kernel once it holds all that it needs: no path can be opened, no
/// program run, no other process touched. For all threads; cannot be undone.
namespace hast::binding {

/// Denies every system call that a worker has no use for; they fail, nobody is killed. Looking for
/// a file finds none. Needs no_new_privs. False when the kernel refused.
///
/// What it lets through was taken from what Node and the engine call; docs/decisions/0007 says
/// why.
bool deny_system_calls();

/// Denies all paths to this thread and those it starts, whichever way they are asked for: the
/// kernel's ring is not under the filter of system calls. False when the kernel has no landlock.
bool deny_paths();

}  // namespace hast::binding
