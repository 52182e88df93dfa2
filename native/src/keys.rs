//! Record keys, as `cdc/outbox/keys.py` makes them.

/// How the text of a key column becomes a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// What stands before the text.
    pub before: Vec<u8>,
    /// What stands behind it.
    pub after: Vec<u8>,
    /// Whether the text is a JSON string, escaped as Jackson does.
    pub is_string: bool,
}

impl Frame {
    /// Whether the text itself is the key.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.before.is_empty() && self.after.is_empty() && !self.is_string
    }

    /// The key in place of what `out` holds.
    pub fn write(&self, text: &str, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.before);
        if self.is_string {
            escape(text, out);
        } else {
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(&self.after);
    }
}

fn escape(text: &str, out: &mut Vec<u8>) {
    let mut units = [0; 2];
    for character in text.chars() {
        let short = match character {
            '"' | '\\' => Some(character),
            '\u{8}' => Some('b'),
            '\t' => Some('t'),
            '\n' => Some('n'),
            '\u{c}' => Some('f'),
            '\r' => Some('r'),
            _ => None,
        };
        if let Some(short) = short {
            out.push(b'\\');
            out.extend_from_slice(short.encode_utf8(&mut [0; 4]).as_bytes());
        } else if !(' '..='\u{FFFF}').contains(&character) {
            for unit in character.encode_utf16(&mut units) {
                out.extend_from_slice(format!("\\u{unit:04X}").as_bytes());
            }
        } else {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(before: &str, text: &str, after: &str, is_string: bool) -> String {
        let frame = Frame { before: before.into(), after: after.into(), is_string };
        let mut out = b"old".to_vec();
        frame.write(text, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn text_is_escaped_as_jackson_does() {
        assert_eq!(key("\"", "a\"\\/\u{8}\t\n\u{c}\r", "\"", true), r#""a\"\\/\b\t\n\f\r""#);
        assert_eq!(
            key("\"", "\0\u{1f}\u{7f}é\u{2028}😀", "\"", true),
            "\"\\u0000\\u001F\u{7f}é\u{2028}\\uD83D\\uDE00\""
        );
        assert_eq!(key("<", "7\"", ">", false), "<7\">");
    }

    #[test]
    fn without_a_frame_the_text_is_the_key() {
        assert!(Frame::default().is_bare());
        assert!(!Frame { is_string: true, ..Frame::default() }.is_bare());
    }
}
