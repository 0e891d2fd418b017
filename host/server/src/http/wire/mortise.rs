//! The extension object of an answer: its receipt and its credits.

use pipeline::{Attribution, AttributionStatus, Credit, MatchedSpan, Summary};
use request::RequestId;
use serde::Serialize;

/// What an answer says about itself.
#[derive(Debug, Serialize)]
pub(crate) struct MortiseWire {
    /// Id of the receipt, for `/v1/receipts/{id}`.
    receipt: String,
    /// Hash of the receipt in the log, in hex.
    receipt_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    attribution: Option<AttributionWire>,
}

#[derive(Debug, Serialize)]
struct AttributionWire {
    status: &'static str,
    method: String,
    shares: Vec<ShareWire>,
    spans: Vec<SpanWire>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShareWire {
    contributor: String,
    parts_per_billion: u32,
}

#[derive(Debug, Serialize)]
struct SpanWire {
    choice: u32,
    text: String,
    tokens: u32,
    occurrences: u64,
    contributors: Vec<String>,
    documents: Vec<String>,
}

impl MortiseWire {
    pub(crate) fn new(id: &RequestId, summary: Summary) -> Self {
        Self {
            receipt: id.as_str().to_owned(),
            receipt_hash: summary.receipt_hash,
            attribution: summary.attribution.map(AttributionWire::from),
        }
    }
}

impl MortiseWire {
    /// A receipt without credits.
    pub(crate) fn receipt(id: &RequestId, receipt_hash: String) -> Self {
        Self { receipt: id.as_str().to_owned(), receipt_hash, attribution: None }
    }
}

impl From<Attribution> for AttributionWire {
    fn from(attribution: Attribution) -> Self {
        let status = match attribution.status {
            AttributionStatus::Scored => "scored",
            AttributionStatus::None => "none",
            AttributionStatus::Failed => "failed",
        };
        let share = |Credit { contributor, parts_per_billion }| ShareWire {
            contributor,
            parts_per_billion,
        };
        Self {
            status,
            method: attribution.method,
            shares: attribution.credits.into_iter().map(share).collect(),
            spans: attribution.spans.into_iter().map(SpanWire::from).collect(),
            note: attribution.note,
        }
    }
}

impl From<MatchedSpan> for SpanWire {
    fn from(span: MatchedSpan) -> Self {
        let MatchedSpan { choice, text, tokens, occurrences, contributors, documents } = span;
        Self { choice, text, tokens, occurrences, contributors, documents }
    }
}
