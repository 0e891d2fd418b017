//! Replaces what the scanners find, and remembers which value got which number.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::scan::{self, Category};

pub(crate) struct Redactor<'a> {
    categories: &'a [Category],
    placeholder: &'a str,
    /// Number of each value, by category.
    numbers: BTreeMap<(Category, String), usize>,
    /// Different values and finds of each category.
    counts: BTreeMap<Category, (usize, u64)>,
}

impl<'a> Redactor<'a> {
    pub(crate) fn new(categories: &'a [Category], placeholder: &'a str) -> Self {
        Self { categories, placeholder, numbers: BTreeMap::new(), counts: BTreeMap::new() }
    }

    /// Finds by category.
    pub(crate) fn found(&self) -> Vec<(Category, u64)> {
        self.counts.iter().map(|(category, (_, finds))| (*category, *finds)).collect()
    }

    /// Redacts `text` in place; leaves it alone if nothing is found.
    pub(crate) fn text(&mut self, text: &mut String) {
        let finds = scan::find(text, self.categories);
        if finds.is_empty() {
            return;
        }
        let mut redacted = String::with_capacity(text.len());
        let mut end = 0;
        for find in finds {
            redacted.push_str(&text[end..find.start]);
            redacted.push_str(&self.placeholder(find.category, &text[find.start..find.end]));
            end = find.end;
        }
        redacted.push_str(&text[end..]);
        *text = redacted;
    }

    pub(crate) fn text_option(&mut self, text: &mut Option<String>) {
        if let Some(text) = text {
            self.text(text);
        }
    }

    /// Redacts the strings, numbers and keys of a JSON document, which stays one. What is no JSON is
    /// redacted as text.
    pub(crate) fn json(&mut self, json: &mut String) {
        // Most documents hold nothing. Escapes may hide a find, and only they may.
        if !json.contains('\\') && scan::find(json, self.categories).is_empty() {
            return;
        }
        let Ok(mut value) = serde_json::from_str(json) else { return self.text(json) };
        if self.value(&mut value) {
            *json = value.to_string();
        }
    }

    /// Redacts a value and tells whether it changed. The parser bounds the depth.
    fn value(&mut self, value: &mut Value) -> bool {
        match value {
            Value::Null | Value::Bool(_) => false,
            Value::String(text) => {
                let before = text.clone();
                self.text(text);
                *text != before
            }
            Value::Number(number) => {
                let before = number.to_string();
                let mut text = before.clone();
                self.text(&mut text);
                let changed = text != before;
                if changed {
                    *value = Value::String(text);
                }
                changed
            }
            Value::Array(values) => {
                values.iter_mut().fold(false, |changed, value| self.value(value) | changed)
            }
            Value::Object(map) => {
                let mut changed = false;
                for (key, mut value) in std::mem::take(map) {
                    let mut redacted = key.clone();
                    self.text(&mut redacted);
                    changed |= redacted != key;
                    changed |= self.value(&mut value);
                    map.insert(redacted, value);
                }
                changed
            }
        }
    }

    fn placeholder(&mut self, category: Category, value: &str) -> String {
        let (values, finds) = self.counts.entry(category).or_default();
        *finds += 1;
        let number = *self.numbers.entry((category, value.to_owned())).or_insert_with(|| {
            *values += 1;
            *values
        });
        let name = self.placeholder.replace("{category}", category.as_str());
        name.replace("{n}", &number.to_string())
    }
}
