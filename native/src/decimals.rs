//! Decimal text to the whole number that Avro stores, exactly, within 128 bits; and that number to bytes.

/// Of ten, as far as 128 bits go.
#[expect(clippy::indexing_slicing, reason = "when it is compiled")]
const POWERS: [i128; 39] = {
    let (mut powers, mut number) = ([1; 39], 1);
    while number < 39 {
        powers[number] = powers[number - 1] * 10;
        number += 1;
    }
    powers
};
const SHORT: usize = 18; // digits that 64 bits hold with their sign

/// The value of a text times `10^scale`; `None` when that is not whole, or has more than `precision` digits.
///
/// The text is as in JSON, with these liberties of strings: a plus sign, leading zeros, no digit on one side of the point.
#[must_use]
pub fn unscaled(text: &[u8], precision: u32, scale: u32) -> Option<i128> {
    let (negative, text) = signed(text);
    let (digits, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (text.get(..at)?, exponent(text.get(at + 1..)?)?),
        None => (text, 0),
    };
    let (number, places) = coefficient(digits)?;
    if number == 0 {
        return Some(0);
    }
    let shift = exponent - places + i64::from(scale);
    let power = *POWERS.get(usize::try_from(shift.unsigned_abs()).ok()?)?;
    let number = if shift >= 0 {
        number.checked_mul(power)?
    } else if number % power == 0 {
        number / power
    } else {
        return None;
    };
    let fits = number < *POWERS.get(precision as usize)?;
    fits.then_some(if negative { -number } else { number })
}

fn signed(text: &[u8]) -> (bool, &[u8]) {
    match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    }
}

fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = signed(text);
    if digits.is_empty() || digits.len() > 6 {
        return None;
    }
    let mut number = 0;
    for &byte in digits {
        number = number * 10 + i64::from(digit(byte)?);
    }
    Some(if negative { -number } else { number })
}

/// The digits as a whole number, and how many of them stand after the point.
fn coefficient(text: &[u8]) -> Option<(i128, i64)> {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, &[][..]),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = || whole.iter().chain(fraction);
    let number = if whole.len() + fraction.len() <= SHORT {
        digits().try_fold(0_i64, |number, byte| Some(number * 10 + i64::from(digit(*byte)?)))?.into()
    } else {
        digits().try_fold(0_i128, |number, byte| number.checked_mul(10)?.checked_add(digit(*byte)?.into()))?
    };
    Some((number, i64::try_from(fraction.len()).ok()?))
}

fn digit(byte: u8) -> Option<u8> {
    byte.is_ascii_digit().then_some(byte & 15)
}

/// How many bytes a number needs, with a sign bit more than that: as fastavro has it.
#[must_use]
pub fn size(number: i128) -> usize {
    let bits = u128::BITS - number.unsigned_abs().leading_zeros();
    (bits as usize + 8) / 8
}

/// Whether a number in two's complement fits in `size` bytes, if there is a limit.
#[must_use]
pub fn fits(number: i128, size: Option<usize>) -> bool {
    write(&mut Vec::new(), number, size).is_some()
}

/// Appends a number in two's complement, big-endian, in `size` bytes or as many as it needs.
pub fn write(out: &mut Vec<u8>, number: i128, fixed: Option<usize>) -> Option<()> {
    let bytes = number.to_be_bytes();
    let size = fixed.unwrap_or_else(|| size(number));
    if let Some(missing) = size.checked_sub(bytes.len()) {
        let sign = if number < 0 { 255 } else { 0 };
        out.resize(out.len().checked_add(missing)?, sign);
        out.extend_from_slice(&bytes);
        return Some(());
    }
    let bits = u32::try_from(size.checked_mul(8)?.checked_sub(1)?).ok()?;
    let limit = 1_i128.checked_shl(bits)?;
    if !(-limit..limit).contains(&number) {
        return None;
    }
    out.extend_from_slice(bytes.get(bytes.len() - size..)?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_declined() {
        for (text, number) in [
            ("12.34", 1234),
            ("-12.34", -1234),
            ("1e2", 10_000),
            ("+.5", 50),
            ("5.", 500),
            ("1000e-3", 100),
            ("0.000", 0),
            ("0e999999", 0),
            ("9999.99", 999_999),
        ] {
            assert_eq!(unscaled(text.as_bytes(), 6, 2), Some(number), "{text}");
        }
        for wrong in ["", ".", "-", "1.234", "10000", "1e5", "1e", "1e1234567", "1.2.3", "1_0", "NaN", "1e-3", "--1"] {
            assert_eq!(unscaled(wrong.as_bytes(), 6, 2), None, "{wrong}");
        }
        assert_eq!(unscaled("9".repeat(38).as_bytes(), 38, 0), Some(POWERS[38] - 1));
        assert_eq!(unscaled("9".repeat(39).as_bytes(), 38, 0), None);
    }

    fn bytes(number: i128, size: Option<usize>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        write(&mut out, number, size).map(|()| out)
    }

    #[test]
    fn decimals_are_written_in_twos_complement() {
        assert_eq!(bytes(0, None), Some(vec![0]));
        assert_eq!(bytes(127, None), Some(vec![127]));
        assert_eq!(bytes(128, None), Some(vec![0, 128]));
        assert_eq!(bytes(-128, None), Some(vec![255, 128]), "a bit more than needed");
        assert_eq!(bytes(-1, Some(3)), Some(vec![255, 255, 255]));
        assert_eq!(bytes(-1, Some(18)), Some(vec![255; 18]));
        assert_eq!(bytes(128, Some(1)), None);
        assert_eq!(bytes(-128, Some(1)), Some(vec![128]));
    }
}
