//! Which system calls a sandbox does not have (seccomp(2)).
//!
//! No web app needs them, and without capabilities they still lead far into the
//! kernel: new namespaces, mounts, BPF, io_uring; or to what is not the app's:
//! the keyrings that it inherits from the server, the kernel's log. The filter is
//! a program for the kernel's classic BPF machine, handed to bubblewrap as a file.

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the numbers of system calls are known for x86-64 and 64-bit ARM only");

/// As on a kernel that is too old: programs fall back to something else.
const NOT_THERE: u32 = 38; // ENOSYS
/// As for somebody who may not.
const NOT_ALLOWED: u32 = 1; // EPERM

/// As on a kernel without that kind of socket.
const NO_SUCH_FAMILY: u32 = 97; // EAFNOSUPPORT

/// A call that is refused, with its number and the error.
struct Refused(u32, u32);

/// The machine's name in `struct seccomp_data` (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
/// `clone`'s number.
#[cfg(target_arch = "x86_64")]
const CLONE: u32 = 56;
/// `socket`'s number.
#[cfg(target_arch = "x86_64")]
const SOCKET: u32 = 41;
/// The numbers of asm/unistd_64.h.
#[cfg(target_arch = "x86_64")]
const REFUSED: &[Refused] = &[
    Refused(435, NOT_THERE),   // clone3: its flags are out of a filter's sight
    Refused(425, NOT_THERE),   // io_uring_setup
    Refused(426, NOT_THERE),   // io_uring_enter
    Refused(427, NOT_THERE),   // io_uring_register
    Refused(248, NOT_THERE),   // add_key
    Refused(249, NOT_THERE),   // request_key
    Refused(250, NOT_THERE),   // keyctl
    Refused(321, NOT_THERE),   // bpf
    Refused(298, NOT_THERE),   // perf_event_open
    Refused(323, NOT_THERE),   // userfaultfd
    Refused(272, NOT_ALLOWED), // unshare
    Refused(308, NOT_ALLOWED), // setns
    Refused(165, NOT_ALLOWED), // mount
    Refused(166, NOT_ALLOWED), // umount2
    Refused(155, NOT_ALLOWED), // pivot_root
    Refused(430, NOT_ALLOWED), // fsopen
    Refused(433, NOT_ALLOWED), // fspick
    Refused(429, NOT_ALLOWED), // move_mount
    Refused(428, NOT_ALLOWED), // open_tree
    Refused(442, NOT_ALLOWED), // mount_setattr
    Refused(103, NOT_ALLOWED), // syslog
];

/// The machine's name in `struct seccomp_data` (linux/audit.h).
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;
/// `clone`'s number.
#[cfg(target_arch = "aarch64")]
const CLONE: u32 = 220;
/// `socket`'s number.
#[cfg(target_arch = "aarch64")]
const SOCKET: u32 = 198;
/// The numbers of asm-generic/unistd.h.
#[cfg(target_arch = "aarch64")]
const REFUSED: &[Refused] = &[
    Refused(435, NOT_THERE),   // clone3: its flags are out of a filter's sight
    Refused(425, NOT_THERE),   // io_uring_setup
    Refused(426, NOT_THERE),   // io_uring_enter
    Refused(427, NOT_THERE),   // io_uring_register
    Refused(217, NOT_THERE),   // add_key
    Refused(218, NOT_THERE),   // request_key
    Refused(219, NOT_THERE),   // keyctl
    Refused(280, NOT_THERE),   // bpf
    Refused(241, NOT_THERE),   // perf_event_open
    Refused(282, NOT_THERE),   // userfaultfd
    Refused(97, NOT_ALLOWED),  // unshare
    Refused(268, NOT_ALLOWED), // setns
    Refused(40, NOT_ALLOWED),  // mount
    Refused(39, NOT_ALLOWED),  // umount2
    Refused(41, NOT_ALLOWED),  // pivot_root
    Refused(430, NOT_ALLOWED), // fsopen
    Refused(433, NOT_ALLOWED), // fspick
    Refused(429, NOT_ALLOWED), // move_mount
    Refused(428, NOT_ALLOWED), // open_tree
    Refused(442, NOT_ALLOWED), // mount_setattr
    Refused(116, NOT_ALLOWED), // syslog
];

/// The sockets between a virtual machine and its host (linux/socket.h): no firewall of this
/// machine sees them.
const AF_VSOCK: u32 = 40;
/// The flag of `clone` for a new user namespace (linux/sched.h).
const CLONE_NEWUSER: u32 = 0x1000_0000;
/// On x86-64 the calls of another convention (x32) have this bit in their number.
const X32: u32 = 0x4000_0000;

/// Instructions of the BPF machine (linux/filter.h): load a word, jump if equal,
/// if not less, if bits are set, return.
const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Answers of a filter (linux/seccomp.h).
const ALLOW: u32 = 0x7FFF_0000;
const ERROR: u32 = 0x0005_0000;

/// Offsets in `struct seccomp_data`: the number, the architecture, and the lower half
/// of the first argument on a little-endian machine.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// The filter, as the kernel reads it.
pub fn filter() -> Vec<u8> {
    let mut program = Vec::new();
    let mut add = |code: u16, if_true: u8, if_false: u8, value: u32| {
        program.extend_from_slice(&code.to_ne_bytes());
        program.extend_from_slice(&[if_true, if_false]);
        program.extend_from_slice(&value.to_ne_bytes());
    };
    // Calls of another architecture have other numbers: a 32-bit program is refused whole.
    add(LOAD, 0, 0, ARCH);
    add(IF_EQUAL, 1, 0, ARCHITECTURE);
    add(RETURN, 0, 0, ERROR | NOT_THERE);
    add(LOAD, 0, 0, NUMBER);
    add(IF_AT_LEAST, 0, 1, X32);
    add(RETURN, 0, 0, ERROR | NOT_THERE);
    for Refused(number, error) in REFUSED {
        add(IF_EQUAL, 0, 1, *number);
        add(RETURN, 0, 0, ERROR | error);
    }
    // The family is an `int`: the kernel looks at this half alone.
    add(IF_EQUAL, 0, 4, SOCKET);
    add(LOAD, 0, 0, FIRST_ARGUMENT);
    add(IF_EQUAL, 0, 1, AF_VSOCK);
    add(RETURN, 0, 0, ERROR | NO_SUCH_FAMILY);
    add(RETURN, 0, 0, ALLOW);
    add(IF_EQUAL, 0, 3, CLONE);
    add(LOAD, 0, 0, FIRST_ARGUMENT);
    add(IF_ANY_BIT, 0, 1, CLONE_NEWUSER);
    add(RETURN, 0, 0, ERROR | NOT_ALLOWED);
    add(RETURN, 0, 0, ALLOW);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_whole_instructions_that_end_with_permission() {
        let filter = filter();
        assert_eq!(filter.len() % 8, 0);
        assert!(filter.len() / 8 <= 4096, "the kernel takes no more (BPF_MAXINSNS)");
        let last = &filter[filter.len() - 8..];
        assert_eq!(last, [6, 0, 0, 0, 0, 0, 0xFF, 0x7F]);
    }
}
