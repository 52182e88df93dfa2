//! Single values as JSON text: what `cdc/avro/json_values.py` writes, byte for byte.

use std::io::Write as _;

use crate::numbers::Number;
use crate::plan::{Node, Plan};
use crate::{decimals, moments, scalars, strings};

/// Appends a text with its quotes.
pub fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut rest = text;
    while let Some((content, after)) = rest.split_at_checked(strings::plain(rest)) {
        out.extend_from_slice(content);
        let Some((&byte, more)) = after.split_first() else {
            break;
        };
        escaped(out, byte);
        rest = more;
    }
    out.push(b'"');
}

fn escaped(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        8 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        12 => b'f',
        b'\r' => b'r',
        _ => {
            let digit = |number: u8| if number < 10 { b'0' + number } else { b'a' + number - 10 };
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}

/// Appends a duration.
pub fn duration(out: &mut Vec<u8>, months: u32, days: u32, millis: u32) {
    out.extend_from_slice(format!("{{\"months\":{months},\"days\":{days},\"millis\":{millis}}}").as_bytes());
}

/// Appends a number as a node has it.
pub fn number(out: &mut Vec<u8>, plan: &Plan, node: &Node, number: Number<'_>) -> Option<()> {
    match node {
        Node::Float => {
            #[expect(clippy::cast_possible_truncation, reason = "rounded, as single precision is")]
            let single = number.double()? as f32;
            if single.is_infinite() {
                return None;
            }
            double(out, single.into())
        }
        Node::Double => double(out, number.double()?),
        Node::Decimal { precision, scale, size, fractions } if *fractions || number.whole.is_some() => {
            decimal(out, plan, decimals::unscaled(number.text, *precision, *scale)?, *scale, *size)
        }
        Node::Int => i32::try_from(number.whole?).ok().map(|_| out.extend_from_slice(number.text)),
        Node::Long => {
            number.whole?;
            if plan.string_longs {
                quoted(out, number.text);
            } else {
                out.extend_from_slice(number.text);
            }
            Some(())
        }
        Node::Date => {
            out.push(b'"');
            moments::write_date(out, number.whole?)?;
            out.push(b'"');
            Some(())
        }
        Node::Time { digits, .. } => {
            let ticks = number.whole.filter(|ticks| (0..moments::day_ticks(*digits)).contains(ticks))?;
            time(out, ticks, *digits)
        }
        Node::Timestamp { digits, local, .. } => timestamp(out, number.whole?, *digits, *local),
        _ => None,
    }
}

/// Appends a text as a node has it.
pub fn text(out: &mut Vec<u8>, plan: &Plan, node: &Node, text: &[u8]) -> Option<()> {
    match node {
        Node::Bytes { form } => {
            scalars::bytes(*form, text)?;
            string(out, text);
        }
        Node::Fixed { form, size } => {
            if scalars::bytes(*form, text)?.len() != *size {
                return None;
            }
            string(out, text);
        }
        Node::Enum { symbols, default } => {
            let index = symbols.iter().position(|symbol| symbol.as_bytes() == text).or(*default)?;
            string(out, symbols.get(index)?.as_bytes());
        }
        Node::Uuid { .. } => {
            scalars::uuid(text)?;
            quoted(out, &text.to_ascii_lowercase());
        }
        Node::Decimal { precision, scale, size, .. } => {
            decimal(out, plan, decimals::unscaled(text, *precision, *scale)?, *scale, *size)?;
        }
        Node::Date => {
            moments::date(text)?;
            quoted(out, text);
        }
        Node::Time { digits, truncate } => time(out, moments::time(text, *digits, *truncate)?, *digits)?,
        Node::Timestamp { digits, local, truncate } => {
            timestamp(out, moments::timestamp(text, *digits, *local, *truncate)?, *digits, *local)?;
        }
        _ => return None,
    }
    Some(())
}

fn decimal(out: &mut Vec<u8>, plan: &Plan, number: i128, scale: u32, size: Option<usize>) -> Option<()> {
    if !decimals::fits(number, size) {
        return None;
    }
    let scale = scale as usize;
    let digits = format!("{:0>width$}", number.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at_checked(digits.len() - scale)?;
    let mark = if plan.string_decimals { "\"" } else { "" };
    let sign = if number < 0 { "-" } else { "" };
    let point = if scale > 0 { "." } else { "" };
    for part in [mark, sign, whole, point, fraction, mark] {
        out.extend_from_slice(part.as_bytes());
    }
    Some(())
}

fn time(out: &mut Vec<u8>, ticks: i64, digits: u32) -> Option<()> {
    out.push(b'"');
    moments::write_clock(out, ticks, digits)?;
    out.push(b'"');
    Some(())
}

fn timestamp(out: &mut Vec<u8>, ticks: i64, digits: u32, local: bool) -> Option<()> {
    let day = moments::day_ticks(digits);
    out.push(b'"');
    moments::write_date(out, ticks.div_euclid(day))?;
    out.push(b'T');
    moments::write_clock(out, ticks.rem_euclid(day), digits)?;
    out.extend_from_slice(if local { b"\"" } else { b"Z\"" });
    Some(())
}

/// Appends the shortest digits that read back, in the form of Python's `repr`.
fn double(out: &mut Vec<u8>, number: f64) -> Option<()> {
    // Rust's form is `-1.25e-7`: one digit, perhaps a point and more digits, the exponent.
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (first, more) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    out.extend_from_slice(sign.as_bytes());
    if !(-4..16).contains(&exponent) {
        let point = if more.is_empty() { "" } else { "." };
        let mark = if exponent < 0 { '-' } else { '+' };
        return write!(out, "{first}{point}{more}e{mark}{:02}", exponent.unsigned_abs()).ok();
    }
    let places = usize::try_from(exponent.unsigned_abs()).ok()?;
    if exponent < 0 {
        return write!(out, "0.{}{first}{more}", "0".repeat(places - 1)).ok();
    }
    match more.split_at_checked(places) {
        Some((whole, "")) => write!(out, "{first}{whole}.0").ok(),
        Some((whole, fraction)) => write!(out, "{first}{whole}.{fraction}").ok(),
        None => write!(out, "{first}{more:0<places$}.0").ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn doubled(number: f64) -> String {
        let mut out = Vec::new();
        assert!(double(&mut out, number).is_some());
        String::from_utf8(out).unwrap_or_default()
    }

    #[test]
    fn doubles_have_the_form_of_python() {
        for (number, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1.0, "1.0"),
            (-12.5, "-12.5"),
            (100.0, "100.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.000_012_5, "1.25e-05"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
            (123_456.789, "123456.789"),
        ] {
            assert_eq!(doubled(number), text);
        }
    }

    proptest! {
        #[test]
        fn doubles_read_back(number: f64) {
            if number.is_finite() {
                prop_assert_eq!(doubled(number).parse::<f64>().map(f64::to_bits), Ok(number.to_bits()));
            }
        }

        #[test]
        fn strings_read_back(text: String) {
            let mut out = Vec::new();
            string(&mut out, text.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).ok(), Some(text));
        }
    }
}
