//! JSON text to a record's value by a plan, in one pass.
//!
//! Values are written as they are met. A record whose keys do not come in the schema's order (jsonb has its own) is put
//! into it when it ends: that is why the place of each field in the output is kept.

use crate::json::{DEPTH, Kind, Reader};
use crate::numbers::Number;
use crate::plan::{Branch, Node, Plan, Record, Target, Union};
use crate::{scalars, texts, varint};

/// Where a field's bytes stand in the output; `None` while it has not been met.
type Span = Option<(usize, usize)>;

/// Encodes one payload after the other; its buffers are kept.
#[derive(Default)]
pub struct Encoder {
    out: Vec<u8>,
    spans: Vec<Span>,
    limit: usize,
    json: bool,
}

impl Encoder {
    /// `header` and the value of `payload`, or `None` when it is declined or becomes longer than `limit` bytes.
    pub fn encode(&mut self, plan: &Plan, header: &[u8], payload: &[u8], limit: usize) -> Option<&[u8]> {
        self.out.clear();
        self.spans.clear();
        self.limit = limit;
        self.json = plan.target == Target::Json;
        self.out.extend_from_slice(header);
        let mut reader = Reader::new(payload)?;
        if !plan.nodes.is_empty() {
            self.value(plan, 0, &mut reader, DEPTH)?;
            self.within_limit()?;
            if !reader.ended() {
                return None;
            }
        }
        if plan.target == Target::Text {
            self.out.truncate(header.len());
            self.out.extend_from_slice(payload);
            self.within_limit()?;
        }
        Some(self.out.as_slice())
    }

    fn value(&mut self, plan: &Plan, node: usize, reader: &mut Reader<'_>, depth: usize) -> Option<()> {
        match plan.nodes.get(node)? {
            Node::Decline => None,
            Node::Null => {
                reader.null()?;
                self.out.extend_from_slice(if self.json { b"null" } else { b"" });
                Some(())
            }
            Node::Boolean => {
                let yes = reader.boolean()?;
                let (word, byte): (&[u8], _) = if yes { (b"true", 1) } else { (b"false", 0) };
                self.out.extend_from_slice(if self.json { word } else { std::slice::from_ref(&byte) });
                Some(())
            }
            Node::Record(record) => self.record(plan, record, reader, depth.checked_sub(1)?, false),
            Node::Array { items } => self.array(plan, *items, reader, depth.checked_sub(1)?),
            Node::Map { values } => self.map(plan, *values, reader, depth.checked_sub(1)?),
            Node::Union(union) => self.union(plan, union, reader, depth),
            Node::Duration => self.duration(reader),
            Node::String => {
                self.string(&reader.string()?);
                Some(())
            }
            node => match reader.kind()? {
                Kind::Number => self.number(plan, node, reader.number()?),
                Kind::Text if self.json => texts::text(&mut self.out, plan, node, &reader.string()?),
                Kind::Text => scalars::text(&mut self.out, node, &reader.string()?),
                _ => None,
            },
        }
    }

    fn string(&mut self, text: &[u8]) {
        if self.json {
            texts::string(&mut self.out, text);
        } else {
            varint::sized(&mut self.out, text);
        }
    }

    fn number(&mut self, plan: &Plan, node: &Node, number: Number<'_>) -> Option<()> {
        if self.json {
            texts::number(&mut self.out, plan, node, number)
        } else {
            scalars::number(&mut self.out, node, number)
        }
    }

    /// `touched`: at least one member must be a field, unless there is none.
    fn record(
        &mut self,
        plan: &Plan,
        record: &Record,
        reader: &mut Reader<'_>,
        depth: usize,
        touched: bool,
    ) -> Option<()> {
        let (start, first) = (self.out.len(), self.spans.len());
        self.spans.resize(first + record.fields.len(), None);
        let (mut met, mut in_order, mut last) = (0, true, None);
        reader.take(b'{')?;
        let empty = reader.found(b'}');
        let mut more = !empty;
        while more {
            if let Key::Field(number) = key(record, reader, last)? {
                let (from, field) = (self.out.len(), record.fields.get(number)?);
                if self.json {
                    self.out.extend_from_slice(field.label.as_bytes());
                }
                self.value(plan, field.node, reader, depth)?;
                let span = self.spans.get_mut(first + number)?;
                if span.replace((from, self.out.len())).is_some() {
                    return None; // a key that comes twice
                }
                in_order &= number == met;
                met += 1;
                last = Some(number);
            } else {
                reader.skip(depth)?;
            }
            more = reader.more(b'}')?;
        }
        if touched && met == 0 && !empty {
            return None;
        }
        if !in_order || met < record.fields.len() {
            self.arrange(record, start, first)?;
        }
        if self.json {
            match self.out.get_mut(start) {
                Some(comma) => *comma = b'{',
                None => self.out.push(b'{'),
            }
            self.out.push(b'}');
        }
        self.spans.truncate(first);
        self.within_limit()
    }

    /// Asked wherever little text may become many bytes, so that the output never grows far beyond it.
    fn within_limit(&self) -> Option<()> {
        (self.out.len() <= self.limit).then_some(())
    }

    /// Puts the fields that were written from `start` on into the schema's order, with defaults for what is missing.
    fn arrange(&mut self, record: &Record, start: usize, first: usize) -> Option<()> {
        let end = self.out.len();
        for (field, span) in record.fields.iter().zip(self.spans.get(first..)?) {
            match (span, &field.absent) {
                (Some((from, to)), _) => self.out.extend_from_within(*from..*to),
                (None, Some(absent)) => self.out.extend_from_slice(absent),
                (None, None) => return None,
            }
        }
        let size = self.out.len() - end;
        self.out.copy_within(end.., start);
        self.out.truncate(start + size);
        Some(())
    }

    fn array(&mut self, plan: &Plan, items: usize, reader: &mut Reader<'_>, depth: usize) -> Option<()> {
        reader.take(b'[')?;
        let at = self.begin(b'[');
        let mut count = 0;
        let mut more = !reader.found(b']');
        while more {
            self.separate(count);
            self.value(plan, items, reader, depth)?;
            self.within_limit()?;
            count += 1;
            more = reader.more(b']')?;
        }
        self.end(at, count, b']');
        Some(())
    }

    fn map(&mut self, plan: &Plan, values: usize, reader: &mut Reader<'_>, depth: usize) -> Option<()> {
        reader.take(b'{')?;
        let at = self.begin(b'{');
        let mut keys = Vec::new();
        let mut more = !reader.found(b'}');
        while more {
            let key = reader.key()?;
            self.separate(keys.len());
            self.string(&key);
            if self.json {
                self.out.push(b':');
            }
            keys.push(key);
            self.value(plan, values, reader, depth)?;
            self.within_limit()?;
            more = reader.more(b'}')?;
        }
        self.end(at, keys.len(), b'}');
        keys.sort_unstable();
        let distinct = keys.windows(2).all(|pair| matches!(pair, [one, other] if one != other));
        distinct.then_some(())
    }

    /// An object of these three keys in any order, and no others.
    fn duration(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let mut amounts: [Option<u32>; 3] = [None; 3];
        reader.take(b'{')?;
        let mut more = true;
        while more {
            let place = match &*reader.key()? {
                b"months" => 0,
                b"days" => 1,
                b"millis" => 2,
                _ => return None,
            };
            if !matches!(reader.kind()?, Kind::Number) {
                return None;
            }
            let amount = u32::try_from(reader.number()?.whole?).ok()?;
            if amounts.get_mut(place)?.replace(amount).is_some() {
                return None; // a key that comes twice
            }
            more = reader.more(b'}')?;
        }
        let [Some(months), Some(days), Some(millis)] = amounts else {
            return None;
        };
        if self.json {
            texts::duration(&mut self.out, months, days, millis);
        } else {
            for amount in [months, days, millis] {
                self.out.extend_from_slice(&amount.to_le_bytes());
            }
        }
        Some(())
    }

    /// Begins an array or a map; returns where its count goes in Avro.
    fn begin(&mut self, bracket: u8) -> usize {
        self.out.push(if self.json { bracket } else { 0 });
        self.out.len() - 1
    }

    fn separate(&mut self, before: usize) {
        if self.json && before > 0 {
            self.out.push(b',');
        }
    }

    fn end(&mut self, at: usize, count: usize, bracket: u8) {
        if self.json {
            self.out.push(bracket);
        } else if count > 0 {
            varint::size_before(&mut self.out, at, count);
            self.out.push(0);
        }
    }

    fn union(&mut self, plan: &Plan, union: &Union, reader: &mut Reader<'_>, depth: usize) -> Option<()> {
        let branch = match reader.kind()? {
            Kind::Null => union.null?,
            Kind::Boolean => union.boolean?,
            Kind::Text => union.text?,
            Kind::Array => union.array?,
            Kind::Object => union.object?,
            Kind::Number => {
                let number = reader.number()?;
                let branch = for_number(union, number)?;
                self.index(branch);
                return self.number(plan, plan.nodes.get(branch.node)?, number);
            }
        };
        self.index(branch);
        if let Some(Node::Record(record)) = plan.nodes.get(branch.node) {
            return self.record(plan, record, reader, depth.checked_sub(1)?, union.touched);
        }
        self.value(plan, branch.node, reader, depth)
    }

    /// Writes which branch of a union follows.
    fn index(&mut self, branch: Branch) {
        if !self.json {
            varint::size(&mut self.out, branch.index);
        }
    }
}

/// What the next key stands for.
enum Key {
    /// The field of this number.
    Field(usize),
    /// Nothing: its value is passed over.
    Unknown,
}

/// Takes the next key.
///
/// Two guesses come first: the order of jsonb, and that of the schema.
#[inline]
fn key(record: &Record, reader: &mut Reader<'_>, last: Option<usize>) -> Option<Key> {
    let rank = last.and_then(|last| record.fields.get(last)).map_or(0, |field| field.rank + 1);
    if let Some(&number) = record.order.get(rank)
        && let Some(next) = record.fields.get(number)
        && reader.found_key(next.quoted.as_bytes())
    {
        return Some(Key::Field(number));
    }
    let number = last.map_or(0, |last| last + 1);
    if let Some(next) = record.fields.get(number)
        && reader.found_key(next.quoted.as_bytes())
    {
        return Some(Key::Field(number));
    }
    let key = reader.key()?;
    match record.find(&key) {
        Some(number) => Some(Key::Field(number)),
        None if record.ignore_unknown && record.aliases.iter().all(|alias| alias.as_bytes() != &*key) => {
            Some(Key::Unknown)
        }
        None => None,
    }
}

fn for_number(union: &Union, number: Number<'_>) -> Option<Branch> {
    let Some(number) = number.whole else {
        return union.float;
    };
    let fits = |bits: u32| bits >= 64 || i32::try_from(number).is_ok();
    union.whole.iter().find(|whole| fits(whole.bits)).map(|whole| whole.branch)
}
