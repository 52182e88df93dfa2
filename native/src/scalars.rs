//! Single values: numbers, and texts that stand for something else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::numbers::Number;
use crate::plan::{Form, Node};
use crate::{decimals, moments, varint};

/// Appends a number as a node has it.
pub fn number(out: &mut Vec<u8>, node: &Node, number: Number<'_>) -> Option<()> {
    match node {
        Node::Float => {
            #[expect(clippy::cast_possible_truncation, reason = "rounded, as single precision is")]
            let single = number.double()? as f32;
            if single.is_infinite() {
                return None;
            }
            out.extend_from_slice(&single.to_le_bytes());
            Some(())
        }
        Node::Double => {
            out.extend_from_slice(&number.double()?.to_le_bytes());
            Some(())
        }
        Node::Decimal { precision, scale, size, fractions } if *fractions || number.whole.is_some() => {
            decimal(out, decimals::unscaled(number.text, *precision, *scale)?, *size)
        }
        node => whole(out, node, number.whole?),
    }
}

fn whole(out: &mut Vec<u8>, node: &Node, number: i64) -> Option<()> {
    let fits = match node {
        Node::Int | Node::Date => i32::try_from(number).is_ok(),
        Node::Long | Node::Timestamp { .. } => true,
        Node::Time { digits, .. } => (0..86_400 * 10_i64.checked_pow(*digits)?).contains(&number),
        _ => false,
    };
    if !fits {
        return None;
    }
    varint::long(out, number);
    Some(())
}

fn decimal(out: &mut Vec<u8>, number: i128, size: Option<usize>) -> Option<()> {
    if size.is_none() {
        varint::size(out, decimals::size(number));
    }
    decimals::write(out, number, size)
}

/// Appends a text as a node has it.
pub fn text(out: &mut Vec<u8>, node: &Node, text: &[u8]) -> Option<()> {
    match node {
        Node::Bytes { form } => varint::sized(out, &bytes(*form, text)?),
        Node::Fixed { form, size } => {
            let bytes = bytes(*form, text)?;
            if bytes.len() != *size {
                return None;
            }
            out.extend_from_slice(&bytes);
        }
        Node::Enum { symbols, default } => {
            let index = symbols.iter().position(|symbol| symbol.as_bytes() == text).or(*default)?;
            varint::size(out, index);
        }
        Node::Uuid { fixed } => {
            let bytes = uuid(text)?;
            if *fixed {
                out.extend_from_slice(&bytes);
            } else {
                varint::sized(out, text);
            }
        }
        Node::Decimal { precision, scale, size, .. } => {
            decimal(out, decimals::unscaled(text, *precision, *scale)?, *size)?;
        }
        Node::Date => varint::long(out, moments::date(text)?),
        Node::Time { digits, truncate } => varint::long(out, moments::time(text, *digits, *truncate)?),
        Node::Timestamp { digits, local, truncate } => {
            varint::long(out, moments::timestamp(text, *digits, *local, *truncate)?);
        }
        _ => return None,
    }
    Some(())
}

/// The bytes that a text of this form stands for.
#[must_use]
pub fn bytes(form: Form, text: &[u8]) -> Option<Vec<u8>> {
    match form {
        Form::AvroJson => std::str::from_utf8(text).ok()?.chars().map(|char| u8::try_from(char).ok()).collect(),
        Form::Base64 => STANDARD.decode(text).ok(),
    }
}

/// The 16 bytes of `00112233-4455-6677-8899-aabbccddeeff`.
#[must_use]
pub fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    let mut bytes = [0; 16];
    let mut rest = text;
    for (place, byte) in bytes.iter_mut().enumerate() {
        if let 4 | 6 | 8 | 10 = place {
            rest = rest.strip_prefix(b"-")?;
        }
        let (&[high, low], more) = rest.split_first_chunk()?;
        *byte = digit(high)? << 4 | digit(low)?;
        rest = more;
    }
    Some(bytes)
}

fn digit(hex: u8) -> Option<u8> {
    match hex {
        b'0'..=b'9' => Some(hex - b'0'),
        b'a'..=b'f' => Some(hex - b'a' + 10),
        b'A'..=b'F' => Some(hex - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_as_characters_or_as_base64() {
        assert_eq!(bytes(Form::AvroJson, "é\u{0}A".as_bytes()), Some(vec![0xE9, 0, b'A']));
        assert_eq!(bytes(Form::AvroJson, "€".as_bytes()), None);
        assert_eq!(bytes(Form::Base64, b"QUI="), Some(b"AB".to_vec()));
        for wrong in [&b"QUI"[..], b"QUJ=", b"QU I=", b"QUI=\n", b"QUI_"] {
            assert_eq!(bytes(Form::Base64, wrong), None);
        }
    }

    #[test]
    fn a_uuid_has_its_dashes_where_they_belong() {
        assert_eq!(uuid(b"00112233-4455-6677-8899-aAbBccddeeff").map(|it| it[10]), Some(0xAA));
        for wrong in [
            "00112233445566778899aabbccddeeff",
            "0011223-34455-6677-8899-aabbccddeeff",
            "x0112233-4455-6677-8899-aabbccddeeff",
        ] {
            assert_eq!(uuid(wrong.as_bytes()), None);
        }
    }
}
