//! Cells of a row to text, as `cdc/replication/values.py` has it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How a cell is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// UTF-8.
    Text,
    /// UTF-8, padded with blanks that are no part of the value.
    Padded,
    /// 16 bytes.
    Uuid,
    /// 2, 4 or 8 bytes, big-endian.
    Integer,
    /// One byte.
    Bool,
    /// `t` or `f`, or the whole word.
    BoolText,
    /// A version byte and UTF-8.
    Jsonb,
    /// Bytes; no text.
    Bytea,
    /// `2026-01-31 08:00:00.5`, of which a header has `T`.
    Timestamp,
    /// `2026-01-31 08:00:00.5+00`, of which a header has `T` and `Z`.
    TimestampTz,
    /// `08:00:00.5+02`, of which a header has `+02:00`.
    TimeTz,
    /// Bytes, of which a header has base64.
    Base64,
    /// `\x6d69`, likewise.
    Base64Text,
    /// The time of the record; no text.
    Moment,
}

impl Read {
    /// By its name in a layout; whether it is of the binary format decides which names there are.
    #[must_use]
    pub fn named(name: &str, binary: bool) -> Option<Self> {
        match (name, binary) {
            ("text", _) => Some(Self::Text),
            ("padded", _) => Some(Self::Padded),
            ("bytea", _) => Some(Self::Bytea),
            ("moment", _) => Some(Self::Moment),
            ("bool-text", false) => Some(Self::BoolText),
            ("uuid", true) => Some(Self::Uuid),
            ("integer", true) => Some(Self::Integer),
            ("bool", true) => Some(Self::Bool),
            ("jsonb", true) => Some(Self::Jsonb),
            _ => None,
        }
    }

    /// How a header in ISO format is read, by the name behind `iso:`.
    #[must_use]
    pub fn of_header(name: &str, binary: bool) -> Option<Self> {
        match (name, binary) {
            ("timestamp", false) => Some(Self::Timestamp),
            ("timestamptz", false) => Some(Self::TimestampTz),
            ("timetz", false) => Some(Self::TimeTz),
            ("bytea", true) => Some(Self::Base64),
            ("bytea", false) => Some(Self::Base64Text),
            _ => Self::named(name, binary),
        }
    }

    /// The text of a cell, made in `scratch` where it is not the cell itself. `None`: declined.
    pub fn text<'a>(self, cell: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<&'a str> {
        match self {
            Self::Text => std::str::from_utf8(cell).ok(),
            Self::Padded => std::str::from_utf8(cell).ok().map(|text| text.trim_end_matches(' ')),
            Self::Bool => Some(if cell == b"\x01" { "true" } else { "false" }),
            Self::BoolText => Some(if cell.first() == Some(&b't') { "true" } else { "false" }),
            Self::Jsonb => std::str::from_utf8(jsonb(cell)?).ok(),
            Self::Integer => {
                scratch.clear();
                scratch.extend_from_slice(integer(cell)?.to_string().as_bytes());
                std::str::from_utf8(scratch).ok()
            }
            Self::Uuid => {
                scratch.clear();
                uuid(cell, scratch)?;
                std::str::from_utf8(scratch).ok()
            }
            Self::Bytea | Self::Moment => None,
            Self::Timestamp => {
                timestamp(cell, scratch);
                std::str::from_utf8(scratch).ok()
            }
            Self::TimestampTz => {
                timestamp(cell, scratch);
                if scratch.contains(&b'T') {
                    offset(scratch);
                }
                std::str::from_utf8(scratch).ok()
            }
            Self::TimeTz => {
                scratch.clear();
                scratch.extend_from_slice(cell);
                offset(scratch);
                std::str::from_utf8(scratch).ok()
            }
            Self::Base64 => {
                scratch.clear();
                scratch.extend_from_slice(STANDARD.encode(cell).as_bytes());
                std::str::from_utf8(scratch).ok()
            }
            Self::Base64Text => {
                bytea_from_text(cell, scratch)?;
                *scratch = STANDARD.encode(&*scratch).into_bytes();
                std::str::from_utf8(scratch).ok()
            }
        }
    }
}

/// The server's text with `T`; years BC and infinity as they are.
fn timestamp(cell: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(cell);
    if !cell.ends_with(b"BC")
        && let Some(space) = out.iter_mut().find(|byte| **byte == b' ')
    {
        *space = b'T';
    }
}

/// `+00` at the end becomes `Z`, another offset of hours alone has minutes.
fn offset(text: &mut Vec<u8>) {
    let Some([b'+' | b'-', hours @ ..]) = text.last_chunk::<3>() else {
        return;
    };
    if *hours == *b"00" {
        text.truncate(text.len().saturating_sub(3));
        text.push(b'Z');
    } else {
        text.extend_from_slice(b":00");
    }
}

/// The text within binary jsonb.
#[must_use]
pub fn jsonb(cell: &[u8]) -> Option<&[u8]> {
    cell.strip_prefix(b"\x01")
}

/// The bytes of `\x6d69`.
pub fn bytea_from_text(cell: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let digits = cell.strip_prefix(b"\\x")?;
    if digits.len() % 2 != 0 {
        return None;
    }
    out.clear();
    for pair in digits.chunks_exact(2) {
        let mut byte = 0;
        for &digit in pair {
            byte = byte << 4 | u8::try_from(char::from(digit).to_digit(16)?).ok()?;
        }
        out.push(byte);
    }
    Some(())
}

fn integer(cell: &[u8]) -> Option<i64> {
    if let Ok(bytes) = cell.try_into() {
        return Some(i64::from(i32::from_be_bytes(bytes)));
    }
    if let Ok(bytes) = cell.try_into() {
        return Some(i64::from_be_bytes(bytes));
    }
    Some(i64::from(i16::from_be_bytes(cell.try_into().ok()?)))
}

const DIGITS: [u8; 16] = *b"0123456789abcdef";

fn uuid(cell: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let bytes: &[u8; 16] = cell.try_into().ok()?;
    let mut text = [b'-'; 36];
    let mut rest = text.as_mut_slice();
    for (place, byte) in bytes.iter().enumerate() {
        if let 4 | 6 | 8 | 10 = place {
            rest = rest.split_first_mut()?.1;
        }
        let (pair, more) = rest.split_first_chunk_mut()?;
        *pair = [*DIGITS.get(usize::from(byte >> 4))?, *DIGITS.get(usize::from(byte & 15))?];
        rest = more;
    }
    out.extend_from_slice(&text);
    Some(())
}

/// Appends a number as eight upper-case hexadecimal digits, or as many more as it has.
pub fn write_index(out: &mut String, index: u64) {
    let most = if index >> 32 == 0 { 8 } else { 16 - index.leading_zeros() / 4 };
    for place in (0..most).rev() {
        if let Some(digit) = char::from_digit((index >> (4 * place) & 15) as u32, 16) {
            out.push(digit.to_ascii_uppercase());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(read: Read, cell: &[u8]) -> Option<String> {
        read.text(cell, &mut Vec::new()).map(String::from)
    }

    #[test]
    fn cells_read_as_in_python() {
        let uuid: Vec<u8> = (0..16).map(|byte| byte * 17).collect();
        assert_eq!(text(Read::Uuid, &uuid).as_deref(), Some("00112233-4455-6677-8899-aabbccddeeff"));
        assert_eq!(text(Read::Integer, &[255, 254]).as_deref(), Some("-2"));
        assert_eq!(text(Read::Integer, &[0, 0, 1, 0]).as_deref(), Some("256"));
        assert_eq!(text(Read::Integer, &i64::MIN.to_be_bytes()).as_deref(), Some("-9223372036854775808"));
        assert_eq!(text(Read::Bool, &[1]).as_deref(), Some("true"));
        assert_eq!(text(Read::Bool, &[]).as_deref(), Some("false"));
        assert_eq!(text(Read::BoolText, b"t").as_deref(), Some("true"));
        assert_eq!(text(Read::BoolText, b"false").as_deref(), Some("false"));
        assert_eq!(text(Read::Padded, "é  ".as_bytes()).as_deref(), Some("é"));
        assert_eq!(text(Read::Jsonb, b"\x01{}").as_deref(), Some("{}"));
    }

    #[test]
    fn headers_in_iso_format_read_as_in_python() {
        for (name, cell, expected) in [
            ("timestamp", "2026-01-31 08:00:00.5", "2026-01-31T08:00:00.5"),
            ("timestamptz", "2026-01-31 08:00:00.123456+00", "2026-01-31T08:00:00.123456Z"),
            ("timestamptz", "2026-01-31 08:00:00+05:30", "2026-01-31T08:00:00+05:30"),
            ("timestamptz", "0044-03-15 12:00:00+00 BC", "0044-03-15 12:00:00+00 BC"),
            ("timestamptz", "infinity", "infinity"),
            ("timetz", "08:00:00+00", "08:00:00Z"),
            ("timetz", "08:00:00-02", "08:00:00-02:00"),
            ("bytea", "\\x6d69", "bWk="),
            ("text", "-infinity", "-infinity"),
        ] {
            let read = Read::of_header(name, false);
            assert_eq!(read.and_then(|read| text(read, cell.as_bytes())).as_deref(), Some(expected), "{name} {cell}");
        }
        assert_eq!(Read::of_header("bytea", true).and_then(|read| text(read, b"mi")).as_deref(), Some("bWk="));
        assert_eq!(Read::of_header("timestamptz", true), None);
    }

    #[test]
    fn an_index_has_eight_digits_or_more() {
        for (index, expected) in
            [(0, "00000000"), (0xABC, "00000ABC"), (0xFFFF_FFFF, "FFFFFFFF"), (1 << 32, "100000000")]
        {
            let mut text = String::from("-");
            write_index(&mut text, index);
            assert_eq!(text, format!("-{expected}"));
        }
    }

    #[test]
    fn what_is_no_such_cell_is_declined() {
        assert_eq!(text(Read::Uuid, b"short"), None);
        assert_eq!(text(Read::Integer, &[1, 2, 3]), None);
        assert_eq!(text(Read::Text, b"\xFF"), None);
        assert_eq!(text(Read::Jsonb, b"\x02{}"), None);
        assert_eq!(text(Read::Bytea, b""), None);
    }

    #[test]
    fn bytea_comes_as_hex_in_the_text_format() {
        let mut out = Vec::new();
        assert_eq!(bytea_from_text(b"\\x6D69", &mut out), Some(()));
        assert_eq!(out, b"mi");
        for wrong in [&b"\\x6"[..], b"6d", b"\\x6g", b"\\x+1"] {
            assert_eq!(bytea_from_text(wrong, &mut out), None);
        }
    }
}
