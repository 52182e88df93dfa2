//! Messages to cells.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use cdc_native::frames::{Span, cell, split};
use cdc_native::keys::Frame;
use cdc_native::layout::{Layout, Places};
use cdc_native::messages::{Member, Message, Value};

fn member(name: &str, value: Value) -> Member {
    Member { name: format!("\"{name}\"").into_bytes().into(), value }
}

fn message(members: Vec<Member>) -> Message {
    Message { prefix: b"outbox"[..].into(), members }
}

fn rows(binary: bool) -> Layout {
    let cells = ["text", "text", "text", "text", "text"].map(String::from);
    let places = Places {
        id: 0,
        key: 0,
        event_type: 1,
        payload: 2,
        topic: vec![1],
        headers: vec![3, 4],
        key_frame: Frame::default(),
        time: None,
    };
    Layout::new(0, binary, &cells, places, false).expect("a layout")
}

fn layout() -> Layout {
    let given = Value::Given(vec![member("tenant", Value::Cell(3))]);
    let members = [member("id", Value::Cell(0)), member("type", Value::Cell(1)), member("headers", given)];
    let all = [&members[..], &[member("payload", Value::Cell(2))]].concat();
    rows(false).of_messages(message(all)).expect("a layout of messages")
}

fn frame(content: &str) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&b"w"[..], &[0; 24], b"M\x01", &[0; 8], b"outbox\0", &size, content.as_bytes()].concat()
}

fn found(frame: &[u8]) -> Option<Vec<Span>> {
    let mut cells = Vec::new();
    split(frame, &layout(), &mut cells).map(|()| cells)
}

const CONTENT: &str =
    r#" { "id" : "a", "type":-1.50,"headers": { "tenant" : null } ,"payload": {"n": [1.0e2, "\u00e4"]} } "#;

#[test]
fn cells_are_found_where_they_stand() {
    let message = frame(CONTENT);
    let cells = found(&message).expect("a message");
    let texts: Vec<_> = (0..5).map(|place| cell(&message, &cells, place)).collect();
    let payload = r#"{"n": [1.0e2, "\u00e4"]}"#;
    assert_eq!(texts, [Some(&b"a"[..]), Some(b"-1.50"), Some(payload.as_bytes()), None, None]);
}

#[test]
fn what_is_not_the_whole_of_such_a_message_is_declined() {
    let message = frame(CONTENT);
    for size in 0..message.len() {
        assert!(found(&message[..size]).is_none(), "{size}");
        assert!(found(&frame(&CONTENT[..size.min(CONTENT.len() - 2)])).is_none(), "{size}");
    }
    assert!(found(&[&message[..], b" "].concat()).is_none());
    for (at, byte) in [(0, b'k'), (25, b'I'), (26, 0), (26, 3), (35, b'O'), (41, b'2'), (45, 0)] {
        let mut message = message.clone();
        message[at] = byte;
        assert!(found(&message).is_none(), "{at}");
    }
}

#[test]
fn unusual_members_are_declined() {
    assert!(found(&frame(&CONTENT.replace("null", r#""acme""#))).is_some());
    for (usual, other) in [
        (r#""a""#, "null"),
        (r#""a""#, "true"),
        (r#""a""#, "{}"),
        (r#""a""#, r#""\u0061""#),
        (r#""a""#, "\"\t\""),
        (r#""a""#, "01"),
        (r#""id""#, r#""i\u0064""#),
        (r#""id""#, r#""key""#),
        (r#""id" : "a", "type":-1.50"#, r#""type":-1.50,"id" : "a""#),
        (r#""id" : "a""#, r#""id" : "a", "id" : "a""#),
        (r#""id" : "a""#, r#""id" : "a", "more" : "a""#),
        (r#"{ "tenant" : null }"#, "{}"),
        (r#"{ "tenant" : null }"#, "null"),
        (r#"{ "tenant" : null }"#, r#"{ "tenant" : null, "more": 1 }"#),
        (r#"{"n": [1.0e2, "\u00e4"]}"#, "null"),
        (r#"{"n": [1.0e2, "\u00e4"]}"#, r#"{"n": [1.0e2, "\u00e4"]"#),
        ("\\u00e4", "\\ud800"),
    ] {
        let changed = CONTENT.replace(usual, other);
        assert_ne!(changed, CONTENT);
        assert!(found(&frame(&changed)).is_none(), "{changed}");
    }
}

#[test]
fn without_members_headers_may_be_empty_or_null() {
    let all = vec![
        member("headers", Value::Given(vec![])),
        member("id", Value::Cell(0)),
        member("type", Value::Cell(1)),
        member("payload", Value::Cell(2)),
    ];
    let layout = rows(false).of_messages(message(all)).expect("a layout of messages");
    for (headers, is_taken) in [("{ }", true), ("null", true), ("[]", false), (r#"{"a":1}"#, false)] {
        let message = frame(&format!(r#"{{"headers": {headers}, "id": 1, "type": "t", "payload": 5}}"#));
        assert_eq!(split(&message, &layout, &mut Vec::new()).is_some(), is_taken, "{headers}");
    }
}

#[test]
fn a_layout_of_messages_has_each_required_cell_and_no_other() {
    let required = || vec![member("id", Value::Cell(0)), member("type", Value::Cell(1))];
    let with = |place: usize| message([required(), vec![member("payload", Value::Cell(place))]].concat());
    assert!(rows(false).of_messages(with(2)).is_some());
    assert!(rows(true).of_messages(with(2)).is_none());
    assert!(rows(false).of_messages(with(5)).is_none());
    assert!(rows(false).of_messages(message(required())).is_none());
}
