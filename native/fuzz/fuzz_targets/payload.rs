//! Any payload by plans that have every kind of node: what is taken is JSON, and taken the same way every time.
#![no_main]

use std::sync::LazyLock;

use cdc_native::encode::Encoder;
use cdc_native::plan::Plan;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static PLANS: LazyLock<Vec<Plan>> = LazyLock::new(|| {
    let plans: Vec<Value> = serde_json::from_str(include_str!("plans.json")).unwrap();
    plans.iter().map(|plan| Plan::parse(plan.to_string().as_bytes()).unwrap()).collect()
});

fuzz_target!(|payload: &[u8]| {
    let mut used = Encoder::default();
    for plan in PLANS.iter() {
        let once = Encoder::default().encode(plan, b"header", payload, 1 << 16).map(<[u8]>::to_vec);
        let again = used.encode(plan, b"header", payload, 1 << 16).map(<[u8]>::to_vec);
        assert_eq!(once, again);
        let Some(body) = once else { continue };
        assert!(body.starts_with(b"header") && body.len() <= 1 << 16);
        serde_json::from_slice::<Value>(payload).expect("what is taken is JSON");
    }
});
