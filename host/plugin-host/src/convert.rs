//! Between the host's words and the generated ones. What comes from a guest is checked here for
//! what types cannot say, and refused by the name of the rule it breaks.

use std::collections::HashSet;

use request::{Message, Role, ToolCall};

use crate::bindings::types as wit;
use crate::bindings::{postprocessor, preprocessor, router, scorer};
use crate::types::{
    Candidate, Evidence, PreprocessOutcome, Reject, RequestInfo, RouteDecision, SHARES_TOTAL,
    SamplingView, Share, StreamAction,
};

/// A rule that a guest broke.
type Broken = String;

/// Attribute of a message that holds the tools it calls, as JSON.
const TOOL_CALLS: &str = "tool-calls";
/// Attribute of a message that names the call whose result it is.
const TOOL_CALL_ID: &str = "tool-call-id";

pub(crate) fn info_to_guest(info: &RequestInfo) -> wit::RequestInfo {
    wit::RequestInfo {
        id: info.id.clone(),
        tenant: info.tenant.clone(),
        endpoint: info.endpoint.clone(),
        model: info.model.clone(),
        adapter: info.adapter.clone(),
        streaming: info.streaming,
        attrs: Vec::new(),
    }
}

pub(crate) fn message_to_guest(message: &Message) -> wit::Message {
    let role = match &message.role {
        Role::System => wit::Role::System,
        Role::User => wit::Role::User,
        Role::Assistant => wit::Role::Assistant,
        Role::Tool => wit::Role::Tool,
        Role::Other(name) => wit::Role::Other(name.clone()),
    };
    let text =
        |key: &str, text: String| wit::Attr { key: key.to_owned(), value: wit::Value::Text(text) };
    let calls = (!message.tool_calls.is_empty())
        .then(|| serde_json::to_string(&message.tool_calls).expect("calls are plain data"));
    let calls = calls.map(|calls| text(TOOL_CALLS, calls));
    let answered = message.tool_call_id.clone().map(|id| text(TOOL_CALL_ID, id));
    wit::Message {
        role,
        name: message.name.clone(),
        parts: vec![wit::Part::Text(message.content.clone())],
        attrs: calls.into_iter().chain(answered).collect(),
    }
}

pub(crate) fn messages_to_guest(messages: &[Message]) -> Vec<wit::Message> {
    messages.iter().map(message_to_guest).collect()
}

pub(crate) fn message_from_guest(message: wit::Message) -> Result<Message, Broken> {
    let role = match message.role {
        wit::Role::System => Role::System,
        wit::Role::User => Role::User,
        wit::Role::Assistant => Role::Assistant,
        wit::Role::Tool => Role::Tool,
        wit::Role::Other(name) => Role::from(name.as_str()),
    };
    let mut content = String::new();
    for part in message.parts {
        match part {
            wit::Part::Text(text) | wit::Part::Json(text) => content.push_str(&text),
            wit::Part::Media(_) => return Err("a message has a media part".to_owned()),
            wit::Part::Other(_) => return Err("a message has a part of unknown type".to_owned()),
        }
    }
    let (mut tool_calls, mut tool_call_id) = (Vec::<ToolCall>::new(), None);
    for wit::Attr { key, value } in message.attrs {
        match (key.as_str(), value) {
            (TOOL_CALLS, wit::Value::Text(text)) => {
                tool_calls = serde_json::from_str(&text)
                    .map_err(|error| format!("the {TOOL_CALLS} of a message: {error}"))?;
            }
            (TOOL_CALL_ID, wit::Value::Text(id)) => tool_call_id = Some(id),
            _ => {}
        }
    }
    Ok(Message { role, content, name: message.name, tool_calls, tool_call_id })
}

pub(crate) fn sampling_to_guest(sampling: &SamplingView) -> wit::Sampling {
    wit::Sampling {
        max_tokens: sampling.max_tokens,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        stop: sampling.stop.clone(),
        seed: sampling.seed,
        attrs: Vec::new(),
    }
}

pub(crate) fn sampling_from_guest(sampling: wit::Sampling) -> SamplingView {
    SamplingView {
        max_tokens: sampling.max_tokens,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        stop: sampling.stop,
        seed: sampling.seed,
    }
}

fn reject_from_guest(reject: wit::Reject) -> Result<Reject, Broken> {
    let wit::Reject { status, code, message, retry_after_ms } = reject;
    if !(400..=499).contains(&status) && status != 503 {
        return Err(format!("it rejects with status {status}, not 400 to 499 or 503"));
    }
    Ok(Reject { status, code, message, retry_after_ms })
}

pub(crate) fn candidates_to_guest(candidates: &[Candidate]) -> Vec<router::Candidate> {
    let candidate = |candidate: &Candidate| router::Candidate {
        model: candidate.model.clone(),
        is_adapter: candidate.is_adapter,
        attrs: Vec::new(),
    };
    candidates.iter().map(candidate).collect()
}

pub(crate) fn decision_from_guest(
    decision: router::Decision,
    candidates: &[Candidate],
) -> Result<RouteDecision, Broken> {
    Ok(match decision {
        router::Decision::Pass => RouteDecision::Pass,
        router::Decision::To(model) => {
            if !candidates.iter().any(|candidate| candidate.model == model) {
                let model = crate::imports::cut(&model, 80);
                return Err(format!("it routes to {model:?}, which is not a candidate"));
            }
            RouteDecision::To(model)
        }
        router::Decision::Reject(reject) => RouteDecision::Reject(reject_from_guest(reject)?),
    })
}

pub(crate) fn outcome_from_guest(
    outcome: preprocessor::Outcome,
) -> Result<PreprocessOutcome, Broken> {
    Ok(match outcome {
        preprocessor::Outcome::Unchanged => PreprocessOutcome::Unchanged,
        preprocessor::Outcome::Change(change) => {
            let messages: Result<Vec<_>, _> =
                change.messages.into_iter().map(message_from_guest).collect();
            let messages = messages?;
            if messages.is_empty() {
                return Err("it leaves no message".to_owned());
            }
            let sampling = change.sampling.map(sampling_from_guest);
            PreprocessOutcome::Change { messages, sampling }
        }
        preprocessor::Outcome::Respond(message) => {
            PreprocessOutcome::Respond(message_from_guest(message)?)
        }
        preprocessor::Outcome::Reject(reject) => {
            PreprocessOutcome::Reject(reject_from_guest(reject)?)
        }
    })
}

pub(crate) fn action_from_guest(action: postprocessor::Action) -> StreamAction {
    match action {
        postprocessor::Action::Pass => StreamAction::Pass,
        postprocessor::Action::Hold => StreamAction::Hold,
        postprocessor::Action::Replace(text) => StreamAction::Replace(text),
        postprocessor::Action::Stop(text) => StreamAction::Stop(text),
    }
}

pub(crate) fn evidence_to_guest(evidence: &Evidence) -> scorer::Evidence {
    let owner = |&(owner, documents): &(u32, u32)| scorer::OwnerCount { owner, documents };
    let span = |span: &crate::types::EvidenceSpan| scorer::Span {
        start: span.start,
        tokens: span.tokens,
        occurrences: span.occurrences,
        unigram_logprob: span.unigram_logprob,
        owners: span.owners.iter().map(owner).collect(),
    };
    scorer::Evidence {
        corpus_tokens: evidence.corpus_tokens,
        output_tokens: evidence.output_tokens,
        owners: evidence.owners,
        spans: evidence.spans.iter().map(span).collect(),
        attrs: Vec::new(),
    }
}

/// Shares that name known owners, each once, and sum to exactly [`SHARES_TOTAL`]; or none.
pub(crate) fn shares_from_guest(
    shares: &[scorer::Share],
    owners: u32,
) -> Result<Vec<Share>, Broken> {
    let mut seen = HashSet::new();
    let mut sum = 0_u64;
    for share in shares {
        if share.owner >= owners {
            return Err(format!("it credits owner {}, and there are {owners}", share.owner));
        }
        if !seen.insert(share.owner) {
            return Err(format!("it credits owner {} twice", share.owner));
        }
        sum += u64::from(share.parts);
    }
    if !shares.is_empty() && sum != u64::from(SHARES_TOTAL) {
        return Err(format!("its shares sum to {sum}, not to {SHARES_TOTAL}"));
    }
    Ok(shares.iter().map(|share| Share { owner: share.owner, parts: share.parts }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_round_trip() {
        for role in ["system", "user", "assistant", "tool", "developer"] {
            let mut message = Message::new(Role::from(role), "text\u{0}é");
            message.name = Some("n".to_owned());
            assert_eq!(message_from_guest(message_to_guest(&message)), Ok(message));
        }
    }

    #[test]
    fn calls_of_tools_survive_and_broken_ones_are_refused() {
        let mut message = Message::new(Role::Assistant, "");
        let arguments = serde_json::Map::from_iter([("é".to_owned(), 1.into())]);
        message.tool_calls = vec![ToolCall { id: "c1".into(), name: "f".into(), arguments }];
        message.tool_call_id = Some("c0".to_owned());
        assert_eq!(message_from_guest(message_to_guest(&message)), Ok(message.clone()));
        let mut guest = message_to_guest(&message);
        guest.attrs[0].value = wit::Value::Text("[{]".to_owned());
        assert!(message_from_guest(guest).is_err_and(|rule| rule.contains(TOOL_CALLS)));
    }

    #[test]
    fn parts_are_joined_or_refused() {
        let with = |parts| {
            let mut message = message_to_guest(&Message::new(Role::User, ""));
            message.parts = parts;
            message_from_guest(message).map(|message| message.content)
        };
        let text = |text: &str| wit::Part::Text(text.to_owned());
        assert_eq!(with(vec![text("a"), wit::Part::Json("{}".into())]), Ok("a{}".into()));
        assert_eq!(with(vec![]), Ok(String::new()));
        let media = wit::Media { mime: "image/png".into(), uri: "x".into() };
        assert!(with(vec![wit::Part::Media(media)]).is_err());
        assert!(with(vec![wit::Part::Other(("t".into(), "1".into()))]).is_err());
    }

    #[test]
    fn statuses_at_below_and_above() {
        let with = |status| {
            let reject =
                wit::Reject { status, code: "c".into(), message: "m".into(), retry_after_ms: None };
            reject_from_guest(reject).is_ok()
        };
        let refused = [0, 200, 399, 500, 502, 504, u16::MAX];
        assert!(refused.into_iter().all(|status| !with(status)));
        assert!([400, 499, 503].into_iter().all(with));
    }

    #[test]
    fn shares_must_be_true() {
        let check = |shares: &[(u32, u32)], expect: Result<usize, &str>| {
            let shares: Vec<_> =
                shares.iter().map(|&(owner, parts)| scorer::Share { owner, parts }).collect();
            match (shares_from_guest(&shares, 3), expect) {
                (Ok(shares), Ok(count)) => assert_eq!(shares.len(), count),
                (Err(rule), Err(part)) => assert!(rule.contains(part), "{rule}"),
                (got, expect) => panic!("{got:?} instead of {expect:?}"),
            }
        };
        check(&[], Ok(0));
        check(&[(0, SHARES_TOTAL)], Ok(1));
        check(&[(0, SHARES_TOTAL - 1), (2, 1)], Ok(2));
        check(&[(0, SHARES_TOTAL - 1)], Err("sum to 999999999"));
        check(&[(0, SHARES_TOTAL), (1, 1)], Err("sum to 1000000001"));
        check(&[(3, SHARES_TOTAL)], Err("owner 3"));
        check(&[(1, SHARES_TOTAL / 2), (1, SHARES_TOTAL / 2)], Err("twice"));
        // A sum that would come right in 32 bits.
        check(&[(0, u32::MAX), (1, SHARES_TOTAL), (2, 1)], Err("sum to 5294967296"));
    }
}
