//! Avro's variable-length zig-zag numbers. <https://avro.apache.org/docs/1.12.0/specification/#binary-encoding>

/// Appends a long; an int has the same bytes.
pub fn long(out: &mut Vec<u8>, number: i64) {
    unsigned(out, (number << 1 ^ number >> 63).cast_unsigned());
}

/// Appends a length or a count.
pub fn size(out: &mut Vec<u8>, count: usize) {
    unsigned(out, (count as u64) << 1);
}

/// Appends bytes, their length first.
pub fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    size(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn unsigned(out: &mut Vec<u8>, mut number: u64) {
    while number > 127 {
        out.push(low_bits(number) | 128);
        number >>= 7;
    }
    out.push(low_bits(number));
}

fn low_bits(number: u64) -> u8 {
    number.to_le_bytes()[0] & 127
}

/// Puts a count before what stands from `at` on, where one byte has been left for it.
pub fn size_before(out: &mut Vec<u8>, at: usize, count: usize) {
    if count < 64
        && let (Some(place), Ok(count)) = (out.get_mut(at), u8::try_from(count))
    {
        *place = count << 1;
        return;
    }
    let mut bytes = Vec::with_capacity(10);
    size(&mut bytes, count);
    out.splice(at..=at, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long_bytes(number: i64) -> Vec<u8> {
        let mut out = Vec::new();
        long(&mut out, number);
        out
    }

    #[test]
    fn longs_are_as_the_specification_has_them() {
        assert_eq!(long_bytes(0), [0]);
        assert_eq!(long_bytes(-1), [1]);
        assert_eq!(long_bytes(1), [2]);
        assert_eq!(long_bytes(-64), [0x7F]);
        assert_eq!(long_bytes(64), [0x80, 1]);
        assert_eq!(long_bytes(i64::MAX), [0xFE, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        assert_eq!(long_bytes(i64::MIN), [255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    }

    #[test]
    fn a_count_takes_the_place_left_for_it_however_large_it_is() {
        for count in [0, 63, 64, 8191, 8192, 1 << 40] {
            let mut out = vec![b'a', 0, b'b', b'c'];
            size_before(&mut out, 1, count);
            let mut expected = vec![b'a'];
            size(&mut expected, count);
            expected.extend(b"bc");
            assert_eq!(out, expected);
        }
    }
}
