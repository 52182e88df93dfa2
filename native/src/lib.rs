//! From frames of the write-ahead log to the fields of Kafka records: the accelerator of `cdc-publisher`.
//!
//! One rule: what is not plain is *declined*, and left to the general path in Python, which alone refuses rows. So every function here
//! that reads foreign bytes returns an `Option`, and `None` never means that something is wrong.

pub mod decimals;
pub mod encode;
pub mod frames;
pub mod json;
pub mod keys;
pub mod layout;
pub mod messages;
pub mod moments;
pub mod numbers;
pub mod plan;
#[cfg(feature = "python")]
mod python;
pub mod scalars;
pub mod strings;
pub mod texts;
pub mod values;
pub mod varint;
