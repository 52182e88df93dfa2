//! Payloads by plans: what becomes of records, unions, arrays and maps.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may fail")]

use cdc_native::encode::Encoder;
use cdc_native::plan::Plan;
use serde_json::{Value, json};

fn plan(nodes: &Value) -> Plan {
    Plan::parse(json!({ "nodes": nodes }).to_string().as_bytes()).expect("a plan")
}

fn field(name: &str, node: usize, default: Option<&str>) -> Value {
    json!({"name": name, "node": node, "default": default})
}

fn record(fields: &[Value], ignore: bool) -> Value {
    json!({"kind": "record", "fields": fields, "ignore_unknown": ignore, "aliases": ["old"]})
}

fn pair(ignore: bool) -> Plan {
    let fields = [field("first", 1, None), field("b", 1, Some("Dg=="))];
    plan(&json!([record(&fields, ignore), {"kind": "long"}]))
}

fn encoded(plan: &Plan, payload: &str) -> Option<Vec<u8>> {
    Encoder::default().encode(plan, b"", payload.as_bytes(), 1000).map(<[u8]>::to_vec)
}

#[test]
fn fields_are_written_in_the_schemas_order() {
    for payload in [r#"{"first": 1, "b": 2}"#, r#"{"b":2,"first":1}"#, " {\n\"b\" : 2 ,\t\"first\"\r: 1 } "] {
        assert_eq!(encoded(&pair(false), payload), Some(vec![2, 4]), "{payload}");
    }
}

#[test]
fn a_key_may_be_written_with_escapes() {
    assert_eq!(encoded(&pair(false), r#"{"\u0062": 2, "f\u0069rst": 1}"#), Some(vec![2, 4]));
}

#[test]
fn what_is_missing_is_its_default_or_declined() {
    assert_eq!(encoded(&pair(false), r#"{"first": 1}"#), Some(vec![2, 14]));
    assert_eq!(encoded(&pair(false), r#"{"b": 1}"#), None);
}

#[test]
fn unknown_and_doubled_keys_are_declined() {
    for payload in [r#"{"first":1,"x":1}"#, r#"{"first":1,"first":1}"#, r#"{"first":1,"old":1}"#, r#"{"first":1}x"#] {
        assert_eq!(encoded(&pair(false), payload), None, "{payload}");
    }
}

#[test]
fn unknown_keys_are_passed_over_where_they_are_ignored() {
    assert_eq!(encoded(&pair(true), r#"{"x": [1, {"y": "\n"}], "first": 1, "x": 2}"#), Some(vec![2, 14]));
    for payload in [r#"{"x": 1e400, "first": 1}"#, r#"{"x": tru, "first": 1}"#, r#"{"old": 1, "first": 1}"#] {
        assert_eq!(encoded(&pair(true), payload), None, "{payload}");
    }
}

#[test]
fn arrays_and_maps_are_one_block_and_its_end() {
    let lists = plan(&json!([{"kind": "array", "items": 1}, {"kind": "map", "values": 2}, {"kind": "boolean"}]));
    assert_eq!(encoded(&lists, "[]"), Some(vec![0]));
    assert_eq!(encoded(&lists, r#"[{}, {"k": true}]"#), Some(vec![4, 0, 2, 2, b'k', 1, 0, 0]));
    assert_eq!(encoded(&lists, r#"[{"k": true, "k": true}]"#), None);
    let many = encoded(&lists, &format!("[{}]", vec!["{}"; 100].join(","))).expect("an array");
    assert_eq!(many[..2], [200, 1]);
    assert_eq!(many.len(), 2 + 100 + 1);
}

#[test]
fn a_record_that_holds_itself_ends_where_the_payload_does() {
    let union = json!({"kind": "union", "touched": false, "null": {"index": 0, "node": 2}, "boolean": null, "text": null,
        "array": null, "object": {"index": 1, "node": 0}, "float": null, "whole": []});
    let list = plan(&json!([record(&[field("next", 1, None)], false), union, {"kind": "null"}]));
    assert_eq!(encoded(&list, r#"{"next": {"next": null}}"#), Some(vec![2, 0]));
    let deep = |depth: usize| r#"{"next":"#.repeat(depth) + "null" + &"}".repeat(depth);
    assert!(encoded(&list, &deep(64)).is_some());
    assert!(encoded(&list, &deep(65)).is_none());
}

#[test]
fn numbers_choose_their_branch() {
    let whole = |index: usize, bits: u32| json!({"branch": {"index": index, "node": index + 1}, "bits": bits});
    let union = json!({"kind": "union", "touched": false, "null": null, "boolean": null, "text": null, "array": null,
        "object": null, "float": {"index": 2, "node": 3}, "whole": [whole(0, 32), whole(1, 64)]});
    let numbers = plan(&json!([union, {"kind": "int"}, {"kind": "long"}, {"kind": "float"}]));
    assert_eq!(encoded(&numbers, "1"), Some(vec![0, 2]));
    assert_eq!(encoded(&numbers, "2147483648"), Some(vec![2, 128, 128, 128, 128, 16]));
    assert_eq!(encoded(&numbers, "0.5"), Some(vec![4, 0, 0, 0, 63]));
    assert_eq!(encoded(&numbers, "1e39"), None, "beyond single precision");
    assert_eq!(encoded(&numbers, "true"), None);
}

#[test]
fn what_grows_beyond_the_limit_is_declined() {
    let fat = [field("v", 1, Some(&"A".repeat(400)))];
    let rows = plan(&json!([{"kind": "array", "items": 1}, record(&fat, false)]));
    assert!(encoded(&rows, "[{}, {}, {}]").is_some());
    assert!(encoded(&rows, "[{}, {}, {}, {}]").is_none());
}

#[test]
fn a_plan_that_points_nowhere_or_round_in_a_circle_is_none() {
    let circle = json!({"kind": "union", "touched": false, "null": null, "boolean": null, "text": null, "array": null,
        "object": {"index": 0, "node": 0}, "float": null, "whole": []});
    for nodes in [
        json!([circle]),
        json!([record(&[field("a\":1,\"b", 0, None)], false)]),
        json!([{"kind": "decimal", "precision": 3, "scale": 0, "size": 1_u64 << 60, "fractions": true}]),
        json!([]),
        json!([{"kind": "array", "items": 1}]),
        json!([{"kind": "later"}]),
        json!(null),
    ] {
        assert!(Plan::parse(json!({ "nodes": nodes }).to_string().as_bytes()).is_none(), "{nodes}");
    }
}

#[test]
fn a_duration_is_an_object_of_three_amounts() {
    let nodes = json!([{"kind": "duration"}]);
    let as_json = Plan::parse(json!({"form": "json", "nodes": nodes}).to_string().as_bytes()).expect("a plan");
    for payload in
        [r#"{"months":1,"days":2,"millis":4294967295}"#, r#" { "millis":4294967295, "months":1 , "days":2 } "#]
    {
        assert_eq!(
            encoded(&plan(&nodes), payload),
            Some(vec![1, 0, 0, 0, 2, 0, 0, 0, 255, 255, 255, 255]),
            "{payload}"
        );
        let text = br#"{"months":1,"days":2,"millis":4294967295}"#.to_vec();
        assert_eq!(encoded(&as_json, payload), Some(text), "{payload}");
    }
    for wrong in [
        "{}",
        r#"{"months":1,"days":2}"#,
        r#"{"months":1,"days":2,"millis":3,"x":1}"#,
        r#"{"months":1,"days":2,"millis":3,"millis":3}"#,
        r#"{"months":-1,"days":2,"millis":3}"#,
        r#"{"months":1,"days":2,"millis":4294967296}"#,
        r#"{"months":1.0,"days":2,"millis":3}"#,
        r#"{"months":"1","days":2,"millis":3}"#,
        r#""P1M2D""#,
        "[1, 2, 3]",
    ] {
        assert_eq!(encoded(&plan(&nodes), wrong), None, "{wrong}");
    }
}

#[test]
fn checked_text_stays_as_it_is_and_declines_what_does_not_fit() {
    let checked = json!({"form": "text", "nodes": [record(&[field("n", 1, None)], false), {"kind": "int"}]});
    let checked = Plan::parse(checked.to_string().as_bytes()).expect("a plan");
    for payload in [r#"{"n": 1}"#, " { \"n\" :1}\n"] {
        assert_eq!(encoded(&checked, payload), Some(payload.as_bytes().to_vec()));
    }
    for wrong in [r#"{"n": 1.5}"#, "{}", r#"{"n": 1} x"#, ""] {
        assert_eq!(encoded(&checked, wrong), None, "{wrong}");
    }
    let unchecked = Plan::parse(br#"{"form":"text","nodes":[]}"#).expect("a plan");
    assert_eq!(encoded(&unchecked, "{"), Some(b"{".to_vec()));
}
