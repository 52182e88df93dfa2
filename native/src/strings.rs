//! JSON strings, from behind their first quote.

use std::borrow::Cow;

/// The string's bytes, and how many bytes of `text` it takes with its last quote. `text` is UTF-8.
///
/// Declines half a surrogate pair, control characters and unknown escapes.
#[inline]
#[must_use]
pub fn string(text: &[u8]) -> Option<(Cow<'_, [u8]>, usize)> {
    let (content, after) = text.split_at_checked(plain(text))?;
    match after.first()? {
        b'"' => Some((Cow::Borrowed(content), content.len() + 1)),
        b'\\' => unescaped(text),
        _ => None, // a control character
    }
}

#[cold]
fn unescaped(text: &[u8]) -> Option<(Cow<'_, [u8]>, usize)> {
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        let (content, after) = rest.split_at_checked(plain(rest))?;
        out.extend_from_slice(content);
        match after.split_first()? {
            (b'"', after) => return Some((Cow::Owned(out), text.len() - after.len())),
            (b'\\', after) => rest = escape(after, &mut out)?,
            _ => return None,
        }
    }
}

/// Appends what the text behind a backslash begins with; returns what follows.
fn escape<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (&byte, rest) = text.split_first()?;
    let plain = match byte {
        b'"' | b'\\' | b'/' => byte,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => {
            let (character, rest) = character(rest)?;
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(rest);
        }
        _ => return None,
    };
    out.push(plain);
    Some(rest)
}

/// What follows `\u`; half a surrogate pair is no character.
fn character(text: &[u8]) -> Option<(char, &[u8])> {
    let (first, rest) = hex(text)?;
    if !(0xD800..0xE000).contains(&first) {
        return Some((char::from_u32(first)?, rest));
    }
    let (second, rest) = hex(rest.strip_prefix(b"\\u")?)?;
    if first >= 0xDC00 || !(0xDC00..0xE000).contains(&second) {
        return None;
    }
    Some((char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00))?, rest))
}

fn hex(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<4>()?;
    let mut number = 0;
    for &digit in digits {
        number = number << 4 | char::from(digit).to_digit(16)?;
    }
    Some((number, rest))
}

const ONES: u64 = u64::MAX / 255;
const TOPS: u64 = ONES * 128;

/// How many bytes come before the first quote, backslash or control character; eight at a time.
#[inline]
#[must_use]
pub fn plain(text: &[u8]) -> usize {
    let mut size = 0;
    let mut rest = text;
    while let Some((eight, more)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*eight);
        let quote = word ^ (ONES * 0x22);
        let backslash = word ^ (ONES * 0x5C);
        // A byte's top bit is set where it is special; a false one can only stand behind a true one.
        let special = (word.wrapping_sub(ONES * 32) & !word
            | quote.wrapping_sub(ONES) & !quote
            | backslash.wrapping_sub(ONES) & !backslash)
            & TOPS;
        if special != 0 {
            return size + (special.trailing_zeros() / 8) as usize;
        }
        size += 8;
        rest = more;
    }
    size + rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 32).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<Vec<u8>> {
        string(text.strip_prefix('"')?.as_bytes()).map(|(string, _)| string.into_owned())
    }

    #[test]
    fn escapes_become_their_characters() {
        let escaped = r#""\"\\\/\b\f\n\r\t\u0000\u00e9\u20AC\ud83d\ude00""#;
        assert_eq!(read(escaped).as_deref(), Some("\"\\/\u{8}\u{c}\n\r\t\0é€😀".as_bytes()));
    }

    #[test]
    fn what_is_no_text_is_declined() {
        let halves = [r#""\ud800""#, r#""\ud800\u0041""#, r#""\udc00\ud800""#, r#""\ud800\ud800""#];
        for wrong in halves.into_iter().chain([r#""\x""#, r#""\u12g4""#, r#""\u+123""#, "\"a\nb\"", "\"a", "\"\\"]) {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_text_is_read_as_it_was_written(text: String) {
            let written = serde_json::to_string(&text).unwrap_or_default();
            prop_assert_eq!(read(&(written + "\"more\\")), Some(text.into_bytes()));
        }

        #[test]
        fn the_first_special_byte_is_found_wherever_it_stands(text: Vec<u8>) {
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..32);
            prop_assert_eq!(plain(&text), text.iter().position(special).unwrap_or(text.len()));
        }
    }
}
