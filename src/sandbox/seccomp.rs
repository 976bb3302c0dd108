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
compile_error!("the name of the architecture is known for x86-64 and 64-bit ARM only");

use libc::c_int;

/// Calls that answer as on a kernel that is too old: programs fall back to something else.
const NOT_THERE: [i64; 10] = [
    // Its flags are out of a filter's sight.
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
];

/// Calls that answer as to a process that may not.
const NOT_ALLOWED: [i64; 11] = [
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_syslog,
];

/// The machine's name in `struct seccomp_data` (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// The bits of a socket's type that say which it is (linux/net.h).
const KIND_OF_SOCKET: u32 = 0xF;
/// Protocols of the internet: the usual one of a type, TCP and UDP.
const PROTOCOLS: [c_int; 3] = [libc::IPPROTO_IP, libc::IPPROTO_TCP, libc::IPPROTO_UDP];
/// Those of pings, for datagrams alone.
const PINGS: [c_int; 2] = [libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6];
/// The option with which a program chooses the port that the kernel picks (ip(7)): one that
/// Landlock does not allow it, for example.
const IP_LOCAL_PORT_RANGE: u32 = 51;

/// What types into a terminal (ioctl_tty(2)), and what talks to the machine's console: a program
/// that gets the terminal of another session types commands there.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;

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

/// Offsets in `struct seccomp_data`: the number, the architecture, and the lower halves of the
/// first three arguments on a little-endian machine.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: [u32; 3] = [16, 24, 32];

/// A program for that machine.
#[derive(Default)]
struct Program(Vec<u8>);

impl Program {
    /// An instruction; it works on the lower halves of values.
    fn add(&mut self, code: u16, if_true: u8, if_false: u8, value: impl Into<i64>) {
        let [low @ .., _, _, _, _] = value.into().to_le_bytes();
        self.0.extend_from_slice(&code.to_ne_bytes());
        self.0.extend_from_slice(&[if_true, if_false]);
        self.0.extend_from_slice(&u32::from_le_bytes(low).to_ne_bytes());
    }

    fn refuse(&mut self, error: c_int) {
        self.add(RETURN, 0, 0, i64::from(libc::SECCOMP_RET_ERRNO) | i64::from(error));
    }

    fn allow(&mut self) {
        self.add(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW);
    }

    /// Allows the call when what was loaded is one of these.
    fn allow_any_of(&mut self, values: &[c_int]) {
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
    program.refuse(libc::ENOSYS);
    program.add(LOAD, 0, 0, NUMBER);
    program.add(IF_AT_LEAST, 0, 1, X32);
    program.refuse(libc::ENOSYS);
    let refused = NOT_THERE.map(|call| (call, libc::ENOSYS)).into_iter();
    for (call, error) in refused.chain(NOT_ALLOWED.map(|call| (call, libc::EPERM))) {
        program.add(IF_EQUAL, 0, 1, call);
        program.refuse(error);
    }
    program.add(IF_EQUAL, 0, 6, libc::SYS_setsockopt);
    program.add(LOAD, 0, 0, ARGUMENTS[1]);
    program.add(IF_EQUAL, 0, 3, libc::IPPROTO_IP);
    program.add(LOAD, 0, 0, ARGUMENTS[2]);
    program.add(IF_EQUAL, 0, 1, IP_LOCAL_PORT_RANGE);
    program.refuse(libc::ENOPROTOOPT);
    program.allow();
    program.add(IF_EQUAL, 0, 5, libc::SYS_ioctl);
    program.add(LOAD, 0, 0, ARGUMENTS[1]);
    program.add(IF_EQUAL, 1, 0, TIOCSTI);
    program.add(IF_EQUAL, 0, 1, TIOCLINUX);
    program.refuse(libc::EPERM);
    program.allow();
    program.add(IF_EQUAL, 0, 4, libc::SYS_clone);
    program.add(LOAD, 0, 0, ARGUMENTS[0]);
    program.add(IF_ANY_BIT, 0, 1, libc::CLONE_NEWUSER);
    program.refuse(libc::EPERM);
    program.allow();
    // To the next but one if it is the first, to the next if it is the second.
    program.add(IF_EQUAL, 2, 0, libc::SYS_socket);
    program.add(IF_EQUAL, 1, 0, libc::SYS_socketpair);
    program.allow();
    socket(&mut program);
    program.0
}

/// What is left of `socket` and `socketpair`: netlink is how programs ask for the machine's
/// addresses. Their arguments are of type `int`: the kernel looks at the lower halves alone.
fn socket(program: &mut Program) {
    let [family, kind, protocol] = ARGUMENTS;
    program.add(LOAD, 0, 0, family);
    program.add(IF_EQUAL, 8, 0, libc::AF_INET);
    program.add(IF_EQUAL, 7, 0, libc::AF_INET6);
    program.add(IF_EQUAL, 2, 0, libc::AF_UNIX);
    program.add(IF_EQUAL, 1, 0, libc::AF_NETLINK);
    program.refuse(libc::EAFNOSUPPORT);
    // Unix and netlink: four instructions.
    program.add(LOAD, 0, 0, protocol);
    program.allow_any_of(&PROTOCOLS[..1]);
    program.refuse(libc::EPROTONOSUPPORT);
    // The internet: five.
    program.add(LOAD, 0, 0, kind);
    program.add(AND, 0, 0, KIND_OF_SOCKET);
    program.add(IF_EQUAL, 2, 0, libc::SOCK_DGRAM);
    program.add(IF_EQUAL, 6, 0, libc::SOCK_STREAM);
    program.refuse(libc::ESOCKTNOSUPPORT);
    // Datagrams, five more than streams.
    program.add(LOAD, 0, 0, protocol);
    program.allow_any_of(&PINGS);
    program.add(LOAD, 0, 0, protocol);
    program.allow_any_of(&PROTOCOLS);
    program.refuse(libc::EPROTONOSUPPORT);
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
