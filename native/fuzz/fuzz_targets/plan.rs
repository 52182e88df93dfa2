//! Any plan with any payload: the first line is the plan, the rest the payload.
#![no_main]

use cdc_native::encode::Encoder;
use cdc_native::plan::Plan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (text, payload) = data.split_at(at);
    if let Some(plan) = Plan::parse(text) {
        let mut encoder = Encoder::default();
        let once = encoder.encode(&plan, b"", payload, 1 << 16).map(<[u8]>::to_vec);
        assert_eq!(once.as_deref(), encoder.encode(&plan, b"", payload, 1 << 16));
    }
});
