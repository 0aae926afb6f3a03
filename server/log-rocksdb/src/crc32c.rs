//! CRC-32C (Castagnoli) and RocksDB's masking of it, to prove write-ahead logs without RocksDB.

/// Reversed polynomial of CRC-32C.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// What RocksDB adds to a rotated checksum, so that data which holds checksums does not fool it.
const MASK_DELTA: u32 = 0xa282_ead8;

/// Eight tables: the checksum goes on by eight bytes at a time.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// The checksum of these bytes.
pub(crate) fn value(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let low = crc ^ u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        let at = |table: usize, byte: u8| TABLES[table][usize::from(byte)];
        let [a, b, c, d] = low.to_le_bytes();
        crc = at(7, a) ^ at(6, b) ^ at(5, c) ^ at(4, d);
        crc ^= at(3, chunk[4]) ^ at(2, chunk[5]) ^ at(1, chunk[6]) ^ at(0, chunk[7]);
    }
    for &byte in chunks.remainder() {
        crc = (crc >> 8) ^ TABLES[0][((crc ^ u32::from(byte)) & 0xff) as usize];
    }
    !crc
}

/// The checksum as RocksDB's logs store it.
pub(crate) fn masked(bytes: &[u8]) -> u32 {
    value(bytes).rotate_right(15).wrapping_add(MASK_DELTA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(value(b""), 0);
        assert_eq!(value(b"123456789"), 0xe306_9283);
        // RFC 3720, B.4.
        assert_eq!(value(&[0; 32]), 0x8a91_36aa);
        assert_eq!(value(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    }
}
