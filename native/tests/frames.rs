//! Frames to cells.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use cdc_native::frames::{Span, cell, split};
use cdc_native::keys::Frame;
use cdc_native::layout::{Layout, Places};

fn layout(binary: bool) -> Layout {
    let cells = ["text", "text", "text", "text", "text", "text", ""].map(String::from);
    let places = Places {
        id: 0,
        key: 1,
        event_type: 2,
        payload: 3,
        topic: vec![4],
        headers: vec![5],
        key_frame: Frame::default(),
        time: None,
    };
    Layout::new(7, binary, &cells, places, false).expect("a layout")
}

fn frame(cells: &[&str]) -> Vec<u8> {
    let mut frame = [&b"w"[..], &[0; 24], b"I", &7_u32.to_be_bytes(), b"N"].concat();
    frame.extend(u16::try_from(cells.len()).unwrap().to_be_bytes());
    for cell in cells {
        let (kind, data) = cell.split_at(1);
        frame.extend(kind.bytes());
        if "bt".contains(kind) {
            frame.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
            frame.extend(data.bytes());
        }
    }
    frame
}

const ROW: [&str; 7] = ["bid", "bkey", "btype", "b{}", "border", "bheader", "u"];

fn found(frame: &[u8], layout: &Layout) -> Option<Vec<Span>> {
    let mut cells = Vec::new();
    split(frame, layout, &mut cells).map(|()| cells)
}

#[test]
fn cells_are_found_where_they_stand() {
    let row = frame(&ROW);
    let cells = found(&row, &layout(true)).expect("a row");
    for (place, text) in ROW.iter().enumerate().take(6) {
        assert_eq!(cell(&row, &cells, place), Some(&text.as_bytes()[1..]));
    }
    assert_eq!(cell(&row, &cells, 6), None);
    assert_eq!(cell(&row, &cells, 7), None);
}

#[test]
fn only_headers_may_be_null() {
    for place in 0..ROW.len() {
        let mut row = ROW;
        row[place] = "n";
        assert_eq!(found(&frame(&row), &layout(true)).is_some(), place >= 5, "{place}");
        row[place] = "u";
        assert_eq!(found(&frame(&row), &layout(true)).is_some(), place == 6, "{place}");
        row[place] = "ttext";
        assert_eq!(found(&frame(&row), &layout(true)).is_some(), place == 6, "{place}");
    }
}

#[test]
fn a_frame_that_is_not_the_whole_of_such_a_row_is_declined() {
    let row = frame(&ROW);
    for size in 0..row.len() {
        assert!(found(&row[..size], &layout(true)).is_none(), "{size}");
    }
    assert!(found(&[&row[..], b"n"].concat(), &layout(true)).is_none());
    assert!(found(&frame(&ROW[..6]), &layout(true)).is_none());
    assert!(found(&row, &layout(false)).is_none());
    for (at, byte) in [(0, b'k'), (25, b'U'), (29, 8), (30, b'O'), (33, b'x'), (34, 255)] {
        let mut row = row.clone();
        row[at] = byte;
        assert!(found(&row, &layout(true)).is_none(), "{at}");
    }
}

#[test]
fn a_layout_must_have_a_way_to_read_each_part() {
    let places = Places {
        id: 0,
        key: 0,
        event_type: 0,
        payload: 1,
        topic: vec![],
        headers: vec![],
        key_frame: Frame::default(),
        time: None,
    };
    let made = |cells: [&str; 2], binary: bool| {
        Layout::new(7, binary, &cells.map(String::from), places.clone(), false).is_some()
    };
    assert!(made(["uuid", "jsonb"], true));
    assert!(made(["text", "bytea"], true));
    for (cells, binary) in [
        (["uuid", "jsonb"], false),
        (["", "jsonb"], true),
        (["bytea", "jsonb"], true),
        (["bytea", "bytea"], true),
        (["text", "xml"], true),
        (["text", "integer"], true),
    ] {
        assert!(!made(cells, binary), "{cells:?}");
    }
}
