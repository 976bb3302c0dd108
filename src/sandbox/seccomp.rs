//! Which system calls a sandbox does not have (seccomp(2)).
//!
//! No web app needs them, and without capabilities they still lead far into the
//! kernel: new namespaces, mounts, BPF, io_uring; or to what is not the app's:
//! the keyrings that it inherits from the server, the kernel's log. Of sockets there are
//! the four families that web apps use, and of those of the internet TCP, UDP and pings: the
//! kernel loads a module for any other by itself, and what such a socket does under its
//! surface passes by a firewall that goes by users (SMC), or by Landlock (MPTCP). The filter
//! is a program for the kernel's classic BPF machine, handed to bubblewrap as a file.

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the numbers of system calls are known for x86-64 and 64-bit ARM only");

/// As on a kernel that is too old: programs fall back to something else.
const NOT_THERE: u32 = 38; // ENOSYS
/// As for a process that may not.
const NOT_ALLOWED: u32 = 1; // EPERM

/// As on a kernel without that family, type or protocol of sockets.
const NO_SUCH_FAMILY: u32 = 97; // EAFNOSUPPORT
const NO_SUCH_TYPE: u32 = 94; // ESOCKTNOSUPPORT
const NO_SUCH_PROTOCOL: u32 = 93; // EPROTONOSUPPORT

/// A call that is refused, with its number and the error.
struct Refused(u32, u32);

/// The machine's name in `struct seccomp_data` (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
/// `clone`'s number.
#[cfg(target_arch = "x86_64")]
const CLONE: u32 = 56;
/// The numbers of `socket` and `socketpair`.
#[cfg(target_arch = "x86_64")]
const SOCKETS: [u32; 2] = [41, 53];
/// `setsockopt`'s number.
#[cfg(target_arch = "x86_64")]
const SETSOCKOPT: u32 = 54;
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
/// The numbers of `socket` and `socketpair`.
#[cfg(target_arch = "aarch64")]
const SOCKETS: [u32; 2] = [198, 199];
/// `setsockopt`'s number.
#[cfg(target_arch = "aarch64")]
const SETSOCKOPT: u32 = 208;
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

/// The families of sockets that there are (linux/socket.h), with the bits of the type that say
/// which it is (linux/net.h); netlink is how programs ask for the machine's addresses.
const UNIX: u32 = 1;
const NETLINK: u32 = 16;
const INTERNET: [u32; 2] = [2, 10];
const KIND_OF_SOCKET: u32 = 0xF;
const STREAM: u32 = 1;
const DATAGRAM: u32 = 2;

/// Protocols of the internet (IANA): the usual one of a type, TCP and UDP.
const PROTOCOLS: [u32; 3] = [0, 6, 17];
/// Those of pings, for datagrams alone: ICMP and ICMPv6.
const PINGS: [u32; 2] = [1, 58];
/// The option with which a program chooses the port that the kernel picks (ip(7)): one that
/// Landlock does not allow it, for example.
const SOL_IP: u32 = 0;
const IP_LOCAL_PORT_RANGE: u32 = 51;
const NO_SUCH_OPTION: u32 = 92; // ENOPROTOOPT

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
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// Answers of a filter (linux/seccomp.h).
const ALLOW: u32 = 0x7FFF_0000;
const ERROR: u32 = 0x0005_0000;

/// Offsets in `struct seccomp_data`: the number, the architecture, and the lower halves of the
/// first three arguments on a little-endian machine.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: [u32; 3] = [16, 24, 32];

/// A program for that machine.
#[derive(Default)]
struct Program(Vec<u8>);

impl Program {
    fn add(&mut self, code: u16, if_true: u8, if_false: u8, value: u32) {
        self.0.extend_from_slice(&code.to_ne_bytes());
        self.0.extend_from_slice(&[if_true, if_false]);
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    fn refuse(&mut self, error: u32) {
        self.add(RETURN, 0, 0, ERROR | error);
    }

    fn allow(&mut self) {
        self.add(RETURN, 0, 0, ALLOW);
    }

    /// Allows the call when what was loaded is one of these.
    fn allow_any_of(&mut self, values: &[u32]) {
        for value in values {
            self.add(IF_EQUAL, 0, 1, *value);
            self.allow();
        }
    }
}

/// The filter, as the kernel reads it.
pub fn filter() -> Vec<u8> {
    let mut program = Program::default();
    // Calls of another architecture have other numbers: a 32-bit program is refused whole.
    program.add(LOAD, 0, 0, ARCH);
    program.add(IF_EQUAL, 1, 0, ARCHITECTURE);
    program.refuse(NOT_THERE);
    program.add(LOAD, 0, 0, NUMBER);
    program.add(IF_AT_LEAST, 0, 1, X32);
    program.refuse(NOT_THERE);
    for Refused(number, error) in REFUSED {
        program.add(IF_EQUAL, 0, 1, *number);
        program.refuse(*error);
    }
    program.add(IF_EQUAL, 0, 6, SETSOCKOPT);
    program.add(LOAD, 0, 0, ARGUMENTS[1]);
    program.add(IF_EQUAL, 0, 3, SOL_IP);
    program.add(LOAD, 0, 0, ARGUMENTS[2]);
    program.add(IF_EQUAL, 0, 1, IP_LOCAL_PORT_RANGE);
    program.refuse(NO_SUCH_OPTION);
    program.allow();
    program.add(IF_EQUAL, 0, 4, CLONE);
    program.add(LOAD, 0, 0, ARGUMENTS[0]);
    program.add(IF_ANY_BIT, 0, 1, CLONE_NEWUSER);
    program.refuse(NOT_ALLOWED);
    program.allow();
    // To the next but one if it is the first, to the next if it is the second.
    program.add(IF_EQUAL, 2, 0, SOCKETS[0]);
    program.add(IF_EQUAL, 1, 0, SOCKETS[1]);
    program.allow();
    socket(&mut program);
    program.0
}

/// What is left of `socket` and `socketpair`. Their arguments are of type `int`: the kernel
/// looks at the lower halves alone.
fn socket(program: &mut Program) {
    let [family, kind, protocol] = ARGUMENTS;
    program.add(LOAD, 0, 0, family);
    program.add(IF_EQUAL, 8, 0, INTERNET[0]);
    program.add(IF_EQUAL, 7, 0, INTERNET[1]);
    program.add(IF_EQUAL, 2, 0, UNIX);
    program.add(IF_EQUAL, 1, 0, NETLINK);
    program.refuse(NO_SUCH_FAMILY);
    // Unix and netlink: four instructions.
    program.add(LOAD, 0, 0, protocol);
    program.allow_any_of(&PROTOCOLS[..1]);
    program.refuse(NO_SUCH_PROTOCOL);
    // The internet: five.
    program.add(LOAD, 0, 0, kind);
    program.add(AND, 0, 0, KIND_OF_SOCKET);
    program.add(IF_EQUAL, 2, 0, DATAGRAM);
    program.add(IF_EQUAL, 6, 0, STREAM);
    program.refuse(NO_SUCH_TYPE);
    // Datagrams, five more than streams.
    program.add(LOAD, 0, 0, protocol);
    program.allow_any_of(&PINGS);
    program.add(LOAD, 0, 0, protocol);
    program.allow_any_of(&PROTOCOLS);
    program.refuse(NO_SUCH_PROTOCOL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_whole_instructions_that_end_with_a_refusal() {
        let filter = filter();
        assert_eq!(filter.len() % 8, 0);
        assert!(filter.len() / 8 <= 4096, "the kernel takes no more (BPF_MAXINSNS)");
        let last = &filter[filter.len() - 8..];
        assert_eq!(last, [6, 0, 0, 0, 93, 0, 5, 0], "what is not known is refused");
    }
}
