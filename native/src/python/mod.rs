//! The Python module.

mod records;
mod routes;
mod runs;

use pyo3::prelude::*;

/// The accelerator of cdc-publisher: see `native/README.md`.
#[pymodule(gil_used = true)]
mod cdc_native {
    use pyo3::prelude::*;
    use pyo3::types::PyBytes;

    #[pymodule_export]
    use super::runs::Runs;

    use crate::encode::Encoder;
    use crate::plan::Plan;

    const LARGEST: usize = 1 << 28;

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// The Avro body of a JSON text by a plan; None when the plan or the text is declined.
    #[pyfunction]
    #[pyo3(signature = (plan, payload, /))]
    fn encode<'py>(py: Python<'py>, plan: &[u8], payload: &[u8]) -> Option<Bound<'py, PyBytes>> {
        let plan = Plan::parse(plan)?;
        Encoder::default().encode(&plan, b"", payload, LARGEST).map(|body| PyBytes::new(py, body))
    }
}
