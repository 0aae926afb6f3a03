//! [`Steering`] as a program of the kernel: classic BPF, nine instructions, attached to a group of sockets with
//! `SO_REUSEPORT`. It needs no privilege (eBPF would). The kernel shows it the datagram without its UDP header, and
//! takes what it returns as the index of a socket, in the order in which they were bound.

use std::io;

use super::{LONG_HEADER, LONG_ID_OFFSET, SHIFT, SHORT_ID_OFFSET, Steering};

/// Instructions in the program.
pub const INSTRUCTIONS: usize = 9;

/// One instruction of classic BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub code: u16,
    /// Instructions that a conditional jump skips when the condition holds.
    pub if_true: u8,
    /// And when it does not.
    pub if_false: u8,
    /// Its constant.
    pub constant: u32,
}

/// The codes that are used, as in `linux/bpf_common.h`.
mod code {
    /// The accumulator is the byte at a constant offset; the program returns 0 where there is none.
    pub(super) const LOAD_BYTE: u16 = 0x30;
    /// Likewise four bytes, the most significant first.
    pub(super) const LOAD_WORD: u16 = 0x20;
    /// Jumps when the accumulator has one of the constant's bits.
    pub(super) const JUMP_IF_SET: u16 = 0x45;
    /// Skips so many instructions.
    pub(super) const JUMP: u16 = 0x05;
    /// Multiplies the accumulator, modulo 2^32.
    pub(super) const MULTIPLY: u16 = 0x24;
    /// Shifts it right.
    pub(super) const SHIFT_RIGHT: u16 = 0x74;
    /// Leaves the remainder.
    pub(super) const MODULO: u16 = 0x94;
    /// Returns it.
    pub(super) const RETURN: u16 = 0x16;
}

fn instruction(code: u16, constant: u32) -> Instruction {
    Instruction { code, if_true: 0, if_false: 0, constant }
}

/// The program for this rule.
pub fn of(steering: Steering) -> [Instruction; INSTRUCTIONS] {
    [
        instruction(code::LOAD_BYTE, 0),
        Instruction { code: code::JUMP_IF_SET, if_true: 0, if_false: 2, constant: u32::from(LONG_HEADER) },
        instruction(code::LOAD_WORD, LONG_ID_OFFSET as u32),
        instruction(code::JUMP, 1),
        instruction(code::LOAD_WORD, SHORT_ID_OFFSET as u32),
        instruction(code::MULTIPLY, steering.multiplier),
        instruction(code::SHIFT_RIGHT, SHIFT),
        instruction(code::MODULO, u32::from(steering.shards)),
        instruction(code::RETURN, 0),
    ]
}

/// Attaches the program to the group that this socket is in.
///
/// # Errors
/// The system has no such programs, or does not let us: the safety net has the work then.
#[cfg(target_os = "linux")]
pub fn attach(socket: &std::net::UdpSocket, steering: Steering) -> io::Result<()> {
    use nix::{
        libc::{sock_filter, sock_fprog},
        sys::socket::{setsockopt, sockopt::AttachReusePortCbpf},
    };
    let mut filters = of(steering).map(|instruction| sock_filter {
        code: instruction.code,
        jt: instruction.if_true,
        jf: instruction.if_false,
        k: instruction.constant,
    });
    let program = sock_fprog { len: INSTRUCTIONS as u16, filter: filters.as_mut_ptr() };
    setsockopt(socket, AttachReusePortCbpf, &program).map_err(io::Error::from)
}

/// Other systems have none.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn attach(_socket: &std::net::UdpSocket, _steering: Steering) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does with a program of these instructions.
    fn run(program: &[Instruction], datagram: &[u8]) -> u32 {
        let (mut at, mut accumulator) = (0, 0u32);
        loop {
            let Instruction { code, if_true, if_false, constant } = program[at];
            at += 1;
            let offset = constant as usize;
            match code {
                code::LOAD_BYTE => match datagram.get(offset) {
                    Some(byte) => accumulator = u32::from(*byte),
                    None => return 0,
                },
                code::LOAD_WORD => match datagram.get(offset..).and_then(<[u8]>::first_chunk::<4>) {
                    Some(word) => accumulator = u32::from_be_bytes(*word),
                    None => return 0,
                },
                code::JUMP_IF_SET if accumulator & constant != 0 => at += usize::from(if_true),
                code::JUMP_IF_SET => at += usize::from(if_false),
                code::JUMP => at += offset,
                code::MULTIPLY => accumulator = accumulator.wrapping_mul(constant),
                code::SHIFT_RIGHT => accumulator >>= constant,
                code::MODULO => accumulator %= constant,
                code::RETURN => return accumulator,
                other => panic!("no such instruction: {other:#x}"),
            }
        }
    }

    #[test]
    fn the_program_says_what_the_rule_says() {
        let mut random = blake3::Hasher::new().update(b"datagrams").finalize_xof();
        let mut draw = |bytes: &mut [u8]| random.fill(bytes);
        for shards in [1, 2, 3, 4, 7, 16, 63, 64] {
            let mut secret = [0; 4];
            draw(&mut secret);
            let steering = Steering::new(u32::from_be_bytes(secret), shards);
            let program = of(steering);
            for _ in 0..2_000 {
                let mut head = [0; 2];
                draw(&mut head);
                let mut datagram = vec![0; usize::from(u16::from_be_bytes(head) % 40)];
                draw(&mut datagram);
                let index = run(&program, &datagram);
                assert_eq!(index, u32::from(steering.shard_of(&datagram)), "{datagram:02x?}");
                assert!(index < u32::from(shards), "an index out of range falls back to the address");
            }
        }
    }
}
