//! JSON numbers.

const EXPONENT_DIGITS: usize = 6; // as many as a decimal's may have in Python's pattern of it

/// A number as the text has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number<'a> {
    /// The text.
    pub text: &'a [u8],
    /// Without fraction and exponent, and within 64 bits; `None` when it has one of them.
    pub whole: Option<i64>,
}

impl<'a> Number<'a> {
    /// The number that a text begins with.
    ///
    /// Declines `-0`, a whole one beyond 64 bits, and exponents of more than six digits.
    #[inline]
    #[must_use]
    pub fn at_start(text: &'a [u8]) -> Option<Self> {
        let sign = usize::from(text.first() == Some(&b'-'));
        let digits = text.get(sign..)?;
        let (mut count, mut value) = (0, 0_u64);
        while let Some(digit) = digits.get(count).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            count += 1;
        }
        let (size, whole) = match digits.get(count) {
            Some(b'.' | b'e' | b'E') => (sign + float_size(digits, count)?, None),
            _ => (sign + count, Some(whole(digits, count, value, sign == 1)?)),
        };
        Some(Self { text: text.get(..size)?, whole })
    }

    /// Rounded to the nearest, ties to even, as Python does; `None` when it is not finite.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "rounded as promised")]
    pub fn double(&self) -> Option<f64> {
        if let Some(whole) = self.whole {
            return Some(whole as f64);
        }
        let number: f64 = std::str::from_utf8(self.text).ok()?.parse().ok()?;
        number.is_finite().then_some(number)
    }
}

/// The number of `count` digits, of which `value` is the value within 64 bits.
#[inline]
fn whole(digits: &[u8], count: usize, value: u64, negative: bool) -> Option<i64> {
    let zero = digits.first() == Some(&b'0');
    if !(1..=19).contains(&count) || (zero && (count > 1 || negative)) {
        return None;
    }
    // 19 digits fit in 64 bits without a sign.
    if negative { 0_i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// The length of a number without its sign that has a fraction or an exponent after `count` digits.
fn float_size(digits: &[u8], count: usize) -> Option<usize> {
    if count == 0 || (count > 1 && digits.first() == Some(&b'0')) {
        return None;
    }
    let mut size = count;
    if digits.get(size) == Some(&b'.') {
        let places = digit_count(digits.get(size + 1..)?);
        if places == 0 {
            return None;
        }
        size += 1 + places;
    }
    if let Some(b'e' | b'E') = digits.get(size) {
        size += 1;
        size += usize::from(matches!(digits.get(size), Some(b'+' | b'-')));
        let places = digit_count(digits.get(size..)?);
        if !(1..=EXPONENT_DIGITS).contains(&places) {
            return None;
        }
        size += places;
    }
    Some(size)
}

fn digit_count(text: &[u8]) -> usize {
    text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_whole_within_64_bits_or_doubles() {
        for (text, whole) in
            [("0", 0), ("-1", -1), ("9223372036854775807", i64::MAX), ("-9223372036854775808", i64::MIN)]
        {
            assert_eq!(Number::at_start(text.as_bytes()).and_then(|it| it.whole), Some(whole));
        }
        for (text, double) in
            [("0.1", 0.1), ("-0.0", -0.0), ("1E2", 100.0), ("1.5e-3", 0.0015), ("16777217", 16_777_217.0)]
        {
            let number = Number::at_start(text.as_bytes()).and_then(|it| it.double());
            assert_eq!(number.map(f64::to_bits), Some(f64::to_bits(double)), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_declined() {
        for wrong in ["", "-", "-0", "01", "00.5", "1.", ".5", "1e", "1e+", "+1", "9223372036854775808", "1e1234567"] {
            assert_eq!(Number::at_start(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Number::at_start(b"1e400").and_then(|it| it.double()), None);
    }
}
