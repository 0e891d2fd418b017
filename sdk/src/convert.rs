//! Between the generated types and ours. Moves only; nothing is checked or lost.

use crate::bindings::imports::mortise::core::types as wit;
use crate::types::{
    Attr, Error, Media, Message, Part, Reject, RequestInfo, Role, Sampling, Usage, Value,
};

/// Converts every element.
pub(crate) fn all<A, B: From<A>>(list: Vec<A>) -> Vec<B> {
    list.into_iter().map(B::from).collect()
}

/// Implements both directions between two structs whose listed fields have the same names; fields
/// after `lists` are converted element by element.
macro_rules! both_ways {
    ($wit:path, $ours:ident { $($field:ident),* ; into $($into:ident),* ; lists $($list:ident),* }) => {
        impl From<$wit> for $ours {
            fn from(from: $wit) -> Self {
                Self {
                    $($field: from.$field,)*
                    $($into: from.$into.into(),)*
                    $($list: crate::convert::all(from.$list),)*
                }
            }
        }
        impl From<$ours> for $wit {
            fn from(from: $ours) -> Self {
                Self {
                    $($field: from.$field,)*
                    $($into: from.$into.into(),)*
                    $($list: crate::convert::all(from.$list),)*
                }
            }
        }
    };
}
pub(crate) use both_ways;

both_ways!(wit::Attr, Attr { key; into value; lists });
both_ways!(wit::Media, Media { mime, uri; into; lists });
both_ways!(wit::Message, Message { name; into role; lists parts, attrs });
both_ways!(wit::Sampling, Sampling { max_tokens, temperature, top_p, stop, seed; into; lists attrs });
both_ways!(wit::RequestInfo, RequestInfo {
    id, tenant, endpoint, model, adapter, streaming; into; lists attrs
});
both_ways!(wit::Usage, Usage { prompt_tokens, completion_tokens; into; lists });
both_ways!(wit::Reject, Reject { status, code, message, retry_after_ms; into; lists });
both_ways!(wit::Error, Error { code, message, retryable; into; lists attrs });

/// Implements both directions between two enums.
macro_rules! cases {
    ($wit:path, $ours:ident { $($theirs:ident = $mine:ident $(($($value:ident),+))?),* }) => {
        impl From<$wit> for $ours {
            fn from(from: $wit) -> Self {
                use $wit as W;
                match from {
                    $(W::$theirs $(($($value),+))? => Self::$mine $(($($value.into()),+))?,)*
                }
            }
        }
        impl From<$ours> for $wit {
            fn from(from: $ours) -> Self {
                match from {
                    $($ours::$mine $(($($value),+))? => Self::$theirs $(($($value.into()),+))?,)*
                }
            }
        }
    };
}
#[cfg_attr(not(target_arch = "wasm32"), expect(unused_imports, reason = "imports have enums"))]
pub(crate) use cases;

cases!(wit::Value, Value {
    Text = Text(v), Int = Int(v), Float = Float(v), Boolean = Bool(v), Bytes = Bytes(v)
});
cases!(wit::Role, Role {
    System = System, User = User, Assistant = Assistant, Tool = Tool, Other = Other(v)
});

impl From<wit::Part> for Part {
    fn from(part: wit::Part) -> Self {
        match part {
            wit::Part::Text(text) => Self::Text(text),
            wit::Part::Json(json) => Self::Json(json),
            wit::Part::Media(media) => Self::Media(media.into()),
            wit::Part::Other((name, json)) => Self::Other(name, json),
        }
    }
}

impl From<Part> for wit::Part {
    fn from(part: Part) -> Self {
        match part {
            Part::Text(text) => Self::Text(text),
            Part::Json(json) => Self::Json(json),
            Part::Media(media) => Self::Media(media.into()),
            Part::Other(name, json) => Self::Other((name, json)),
        }
    }
}
