//! How JSON becomes Avro by one contract: a table of nodes, which refer to each other by number.
//!
//! The plan is made by `cdc/avro/compiled/plan.py` from the contract's schema, as JSON. Here it is checked once, so that
//! `encode` meets no number that points nowhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

const WIDEST: usize = 4096; // bytes of a decimal, so that a short text does not become a long value

/// How bytes are written in JSON.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// One character of U+0000 to U+00FF for each.
    AvroJson,
    /// Standard alphabet, padded.
    Base64,
}

/// How one value is read and written.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Node {
    /// Left to Python.
    Decline,
    /// Nothing is written.
    Null,
    /// One byte.
    Boolean,
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
    /// Single precision.
    Float,
    /// Double precision.
    Double,
    /// UTF-8 text.
    String,
    /// Bytes of any length.
    Bytes {
        /// How they come.
        form: Form,
    },
    /// Bytes of one length.
    Fixed {
        /// How they come.
        form: Form,
        /// Their number.
        size: usize,
    },
    /// One of several words.
    Enum {
        /// In the schema's order.
        symbols: Vec<String>,
        /// What stands for an unknown word.
        default: Option<usize>,
    },
    /// A uuid as text, or as 16 bytes.
    Uuid {
        /// As 16 bytes.
        fixed: bool,
    },
    /// An exact number: the whole number that is its value times `10^scale`.
    Decimal {
        /// Digits at the most.
        precision: u32,
        /// Digits after the point.
        scale: u32,
        /// Bytes; as many as are needed when there is none.
        size: Option<usize>,
        /// Whether numbers with a fraction or an exponent are read.
        fractions: bool,
    },
    /// Months, days and milliseconds: an object of three whole numbers, as 12 bytes.
    Duration,
    /// Days since 1970.
    Date,
    /// Units of `10^-digits` seconds since midnight.
    Time {
        /// 3 or 6.
        digits: u32,
        /// Whether excess digits are dropped.
        #[serde(default)]
        truncate: bool,
    },
    /// Units of `10^-digits` seconds since 1970.
    Timestamp {
        /// 3, 6 or 9.
        digits: u32,
        /// Without an offset from UTC.
        local: bool,
        /// Whether excess digits are dropped.
        #[serde(default)]
        truncate: bool,
    },
    /// Items of one kind.
    Array {
        /// Their node.
        items: usize,
    },
    /// Text to values of one kind.
    Map {
        /// Their node.
        values: usize,
    },
    /// Fields.
    Record(Box<Record>),
    /// One of several branches.
    Union(Box<Union>),
}

/// A record's fields.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// In the order in which they are written.
    pub fields: Vec<Field>,
    /// Keys that are passed over to no harm are none when this is false.
    pub ignore_unknown: bool,
    /// Keys that always decline.
    pub aliases: Vec<String>,
    /// The fields' numbers in the order of jsonb: by length, then by bytes.
    #[serde(skip)]
    pub order: Vec<usize>,
}

/// One field of a record.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Its key.
    pub name: String,
    /// Its node.
    pub node: usize,
    /// What is written when the key is missing, in base64; in JSON with `label`.
    pub default: Option<String>,
    /// The same, decoded.
    #[serde(skip)]
    pub absent: Option<Vec<u8>>,
    /// The name with its quotes.
    #[serde(skip)]
    pub quoted: String,
    /// What stands before the value in JSON: a comma, which the first field loses, and the key.
    #[serde(skip)]
    pub label: String,
    /// Its place in `order`.
    #[serde(skip)]
    pub rank: usize,
}

/// Branches by the kind of the JSON value; where none is named, the value is declined.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Union {
    /// For `null`.
    pub null: Option<Branch>,
    /// For `true` and `false`.
    pub boolean: Option<Branch>,
    /// For strings.
    pub text: Option<Branch>,
    /// For arrays.
    pub array: Option<Branch>,
    /// For objects.
    pub object: Option<Branch>,
    /// For numbers with a fraction or an exponent.
    pub float: Option<Branch>,
    /// For whole numbers: the first one that has room.
    pub whole: Vec<Whole>,
    /// An object of which a record would ignore every member is none of its values.
    pub touched: bool,
}

/// One branch of a union.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Branch {
    /// Its number in the schema.
    pub index: usize,
    /// Its node.
    pub node: usize,
}

/// A branch for whole numbers.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whole {
    /// Which.
    pub branch: Branch,
    /// Only numbers of so many bits.
    pub bits: u32,
}

/// What a payload becomes.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Avro's binary encoding.
    #[default]
    Avro,
    /// JSON of the same values, each with one form.
    Json,
    /// What it is, if it is UTF-8, and where there are nodes if it fits them.
    Text,
}

/// A whole contract; node 0 is its root.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What payloads become.
    #[serde(default, rename = "form")]
    pub target: Target,
    /// In JSON: whether longs are strings.
    #[serde(default)]
    pub string_longs: bool,
    /// In JSON: whether decimals are strings.
    #[serde(default)]
    pub string_decimals: bool,
    /// All nodes.
    pub nodes: Vec<Node>,
}

impl Plan {
    /// Reads what `cdc/avro/compiled/plan.py` wrote. `None` for anything else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut plan: Self = serde_json::from_slice(text).ok()?;
        for node in &mut plan.nodes {
            if let Node::Record(record) = node {
                record.prepare()?;
            }
        }
        let is_enough = !plan.nodes.is_empty() || plan.target == Target::Text;
        let sound = is_enough && plan.nodes.iter().all(|node| plan.is_sound(node));
        sound.then_some(plan)
    }

    fn is_sound(&self, node: &Node) -> bool {
        let exists = |node: usize| node < self.nodes.len();
        match node {
            Node::Array { items } => exists(*items),
            Node::Map { values } => exists(*values),
            Node::Record(record) => record.fields.iter().all(|field| exists(field.node)),
            // Avro has no union within a union; without a value between them they could go round in a circle.
            Node::Union(union) => union
                .branches()
                .all(|branch| self.nodes.get(branch.node).is_some_and(|node| !matches!(node, Node::Union(_)))),
            Node::Enum { symbols, default } => default.is_none_or(|index| index < symbols.len()),
            Node::Decimal { precision, scale, size, .. } => {
                scale <= precision && *precision <= 38 && size.is_none_or(|size| (1..=WIDEST).contains(&size))
            }
            Node::Time { digits, .. } | Node::Timestamp { digits, .. } => matches!(digits, 3 | 6 | 9),
            _ => true,
        }
    }
}

impl Record {
    fn prepare(&mut self) -> Option<()> {
        let mut order: Vec<usize> = (0..self.fields.len()).collect();
        order.sort_by_key(|&number| self.fields.get(number).map(|field| (field.name.len(), field.name.clone())));
        for (rank, &number) in order.iter().enumerate() {
            let field = self.fields.get_mut(number)?;
            field.rank = rank;
            if field.name.contains(['"', '\\']) || field.name.contains(char::is_control) {
                return None; // would be escaped in JSON
            }
            field.quoted = format!("\"{}\"", field.name);
            field.label = format!(",{}:", field.quoted);
            if let Some(default) = &field.default {
                field.absent = Some(STANDARD.decode(default).ok()?);
            }
        }
        self.order = order;
        Some(())
    }

    /// The number of the field of a name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        let key = |number: &usize| self.fields.get(*number).map(|field| (field.name.len(), field.name.as_bytes()));
        let place = self.order.binary_search_by(|number| key(number).cmp(&Some((name.len(), name)))).ok()?;
        self.order.get(place).copied()
    }
}

impl Union {
    fn branches(&self) -> impl Iterator<Item = &Branch> {
        [&self.null, &self.boolean, &self.text, &self.array, &self.object, &self.float]
            .into_iter()
            .flatten()
            .chain(self.whole.iter().map(|whole| &whole.branch))
    }
}
