//! JSON text to tokens, strictly: what orjson reads otherwise, or may, is declined.
//!
//! <https://www.rfc-editor.org/rfc/rfc8259>

use std::borrow::Cow;

use crate::numbers::Number;
use crate::strings::string;

/// How deep arrays and objects may be nested.
pub const DEPTH: usize = 64;

/// What kind of value comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// `"`
    Text,
    /// `[`
    Array,
    /// `{`
    Object,
    /// a digit or `-`
    Number,
}

/// Reads a text from its start to its end.
pub struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// `None` for what is not UTF-8.
    #[must_use]
    pub fn new(text: &'a [u8]) -> Option<Self> {
        std::str::from_utf8(text).ok()?;
        Some(Self { text, at: 0 })
    }

    /// Where the reader stands.
    #[inline]
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// The kind of the next value, which begins where the reader then stands.
    #[inline]
    pub fn kind(&mut self) -> Option<Kind> {
        self.space();
        match self.peek()? {
            b'"' => Some(Kind::Text),
            b'-' | b'0'..=b'9' => Some(Kind::Number),
            b'{' => Some(Kind::Object),
            b'[' => Some(Kind::Array),
            b'n' => Some(Kind::Null),
            b't' | b'f' => Some(Kind::Boolean),
            _ => None,
        }
    }

    /// Takes one byte after white space.
    #[inline]
    pub fn take(&mut self, byte: u8) -> Option<()> {
        if self.found(byte) { Some(()) } else { None }
    }

    /// Takes one byte after white space, if it comes.
    #[inline]
    pub fn found(&mut self, byte: u8) -> bool {
        self.space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Whether another member or item follows: takes `,`, or `end`.
    #[inline]
    pub fn more(&mut self, end: u8) -> Option<bool> {
        self.space();
        let byte = self.peek()?;
        self.at += 1;
        match byte {
            b',' => Some(true),
            _ if byte == end => Some(false),
            _ => None,
        }
    }

    /// Whether nothing but white space is left.
    pub fn ended(&mut self) -> bool {
        self.space();
        self.at == self.text.len()
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let end = self.at.checked_add(word.len())?;
        if self.text.get(self.at..end)? != word {
            return None;
        }
        self.at = end;
        Some(())
    }

    /// `null`
    pub fn null(&mut self) -> Option<()> {
        self.space();
        self.word(b"null")
    }

    /// `true` or `false`
    pub fn boolean(&mut self) -> Option<bool> {
        self.space();
        if self.peek()? == b't' { self.word(b"true").map(|()| true) } else { self.word(b"false").map(|()| false) }
    }

    /// A key of an object, and the colon.
    #[inline]
    pub fn key(&mut self) -> Option<Cow<'a, [u8]>> {
        let key = self.string()?;
        self.take(b':')?;
        Some(key)
    }

    /// Takes a key and its colon if the key is written just so; `quoted` is the key with its quotes.
    #[inline]
    pub fn found_key(&mut self, quoted: &[u8]) -> bool {
        self.space();
        let before = self.at;
        if !self.text.get(before..).is_some_and(|rest| rest.starts_with(quoted)) {
            return false;
        }
        self.at += quoted.len();
        let found = self.found(b':');
        if !found {
            self.at = before;
        }
        found
    }

    /// The bytes of a string, which are UTF-8.
    #[inline]
    pub fn string(&mut self) -> Option<Cow<'a, [u8]>> {
        self.take(b'"')?;
        let (text, size) = string(self.text.get(self.at..)?)?;
        self.at += size;
        Some(text)
    }

    /// A number.
    #[inline]
    pub fn number(&mut self) -> Option<Number<'a>> {
        self.space();
        let number = Number::at_start(self.text.get(self.at..)?)?;
        self.at += number.text.len();
        Some(number)
    }

    /// Passes over a value, but reads all of it: what is not JSON is declined.
    pub fn skip(&mut self, depth: usize) -> Option<()> {
        let below = depth.checked_sub(1)?;
        match self.kind()? {
            Kind::Null => self.null(),
            Kind::Boolean => self.boolean().map(|_| ()),
            Kind::Text => self.string().map(|_| ()),
            Kind::Number => self.number()?.double().map(|_| ()),
            Kind::Array => {
                self.take(b'[')?;
                let mut more = !self.found(b']');
                while more {
                    self.skip(below)?;
                    more = self.more(b']')?;
                }
                Some(())
            }
            Kind::Object => {
                self.take(b'{')?;
                let mut more = !self.found(b'}');
                while more {
                    self.key()?;
                    self.skip(below)?;
                    more = self.more(b'}')?;
                }
                Some(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skips(text: &str) -> bool {
        let Some(mut reader) = Reader::new(text.as_bytes()) else {
            return false;
        };
        reader.skip(DEPTH).is_some() && reader.ended()
    }

    #[test]
    fn what_is_json_is_passed_over_and_nothing_else() {
        for right in [r#" {"a": [1, -2.5e3, "x", null, true, false, {}], "b": []} "#, "0", "\"\"", "[[[]]]"] {
            assert!(skips(right), "{right}");
        }
        for wrong in [
            "",
            "-",
            "-0",
            "01",
            "1.",
            ".5",
            "1e",
            "+1",
            "1e400",
            "NaN",
            "nul",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "[",
            "]",
            "[1",
            "1 1",
            "9223372036854775808",
            "1e1234567",
            "\u{feff}1",
            "\u{b}1",
        ] {
            assert!(!skips(wrong), "{wrong}");
        }
        assert!(skips(&("[".repeat(63) + &"]".repeat(63))));
        assert!(!skips(&("[".repeat(65) + &"]".repeat(65))));
    }
}
