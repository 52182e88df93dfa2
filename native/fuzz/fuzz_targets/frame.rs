//! Any frame in layouts of both formats: cells lie within the frame, and their text can be made or is declined.
#![no_main]

use std::sync::LazyLock;

use cdc_native::frames::{cell, split};
use cdc_native::keys::Frame;
use cdc_native::layout::{Layout, Places};
use cdc_native::messages::{Member, Message, Value};
use libfuzzer_sys::fuzz_target;

static LAYOUTS: LazyLock<Vec<Layout>> = LazyLock::new(|| {
    let layout = |binary: bool, cells: &[&str]| {
        let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
        let places = Places { id: 0, key: 2, event_type: 3, payload: 4, topic: vec![1], headers: vec![5, 6], key_frame: Frame::default(), time: None };
        Layout::new(1, binary, &cells, places, false).unwrap()
    };
    vec![
        layout(true, &["uuid", "text", "text", "text", "jsonb", "integer", "bool", ""]),
        layout(true, &["integer", "bool", "uuid", "text", "bytea", "jsonb", "text"]),
        layout(false, &["text", "text", "bool-text", "text", "text", "text", "bool-text"]),
        layout(false, &["text", "text", "text", "text", "bytea", "text", "text"]),
        layout(false, &["text"; 7]).of_messages(message()).unwrap(),
    ]
});

fn message() -> Message {
    let member = |(place, name): (usize, &str)| Member { name: name.as_bytes().into(), value: Value::Cell(place) };
    let cells = [r#""a""#, r#""b""#, r#""c""#, r#""d""#, r#""e""#, r#""f""#, r#""g""#];
    let mut members: Vec<Member> = cells.into_iter().enumerate().map(member).collect();
    let given = members.split_off(5);
    members.push(Member { name: r#""h""#.as_bytes().into(), value: Value::Given(given) });
    Message { prefix: b"o"[..].into(), members }
}

fuzz_target!(|data: &[u8]| {
    let (mut cells, mut scratch) = (Vec::new(), Vec::new());
    for layout in LAYOUTS.iter() {
        // As it is, and as what follows the part of a frame that is always the same.
        let columns = u16::try_from(layout.columns.len()).unwrap().to_be_bytes();
        let whole = [&b"w"[..], &[0; 24], b"I\0\0\0\x01N", &columns, data].concat();
        let size = u32::try_from(data.len()).unwrap().to_be_bytes();
        let message = [&b"w"[..], &[0; 24], b"M\x01", &[0; 8], b"o\0", &size, data].concat();
        for frame in [data, &whole, &message] {
            if split(frame, layout, &mut cells).is_none() {
                continue;
            }
            assert_eq!(cells.len(), layout.columns.len());
            for (place, column) in layout.columns.iter().enumerate() {
                let Some(bytes) = cell(frame, &cells, place) else {
                    assert!(!column.required);
                    continue;
                };
                let text = column.read.and_then(|read| read.text(bytes, &mut scratch).map(String::from));
                assert_eq!(text, column.read.and_then(|read| read.text(bytes, &mut Vec::new()).map(String::from)));
                let _ = cdc_native::values::bytea_from_text(bytes, &mut scratch);
            }
        }
    }
});
