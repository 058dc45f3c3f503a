//! The SSE decoder against `eventsource-stream`, under any split of the bytes.

use capacity_check::net::sse::Decoder;
use eventsource_stream::Eventsource;
use futures_util::{StreamExt, stream};
use proptest::prelude::*;

type Seen = Vec<(String, String, String)>;

/// What our decoder says of these pieces; an event without a type is a `message`.
fn ours(pieces: &[&[u8]]) -> Seen {
    let mut decoder = Decoder::default();
    let mut seen = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the pieces are UTF-8 together");
    for piece in pieces {
        let fed = decoder.feed(piece, |event| {
            let name = if event.name.is_empty() { "message".to_owned() } else { text(event.name) };
            seen.push((name, text(event.data), text(event.id)));
        });
        fed.expect("within the limit");
    }
    seen
}

/// What the oracle says of the same pieces.
fn oracle(pieces: &[&[u8]]) -> Seen {
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = pieces.iter().map(|piece| Ok(piece.to_vec())).collect();
    let events = stream::iter(pieces).eventsource().map(|event| {
        let event = event.expect("the oracle reads it");
        (event.event, event.data, event.id)
    });
    futures_executor(events.collect())
}

/// The stream above is always ready.
fn futures_executor<T>(future: impl Future<Output = T>) -> T {
    crate::support::runtime().block_on(future)
}

/// A line of a stream, with its end.
fn line() -> impl Strategy<Value = String> {
    let value = "[a-zé한 :0-9]{0,12}";
    let field = prop_oneof![
        value.prop_map(|value| format!("data: {value}")),
        value.prop_map(|value| format!("data:{value}")),
        Just("data".to_owned()),
        "[a-z가]{1,6}".prop_map(|value| format!("event: {value}")),
        "[0-9a-z]{0,4}".prop_map(|value| format!("id: {value}")),
        "[0-9]{1,4}".prop_map(|value| format!("retry: {value}")),
        "[a-z ]{0,9}".prop_map(|value| format!(": {value}")),
        "[a-z]{1,6}: [a-z]{0,4}".prop_map(|value| value),
        Just(String::new()),
        Just(String::new()),
    ];
    (field, prop_oneof![Just("\n"), Just("\r\n"), Just("\r")]).prop_map(|(field, end)| field + end)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn equal_to_the_oracle_under_any_split(
        lines in proptest::collection::vec(line(), 0..30),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        // The oracle waits for what follows a carriage return; the comment at the end is that.
        // (A byte order mark is not tried: the oracle panics on it.)
        let text = format!("{}: end\n\n", lines.concat());
        let bytes = text.as_bytes();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let whole = ours(&[bytes]);
        prop_assert_eq!(&ours(&pieces), &whole);
        prop_assert_eq!(&whole, &oracle(&[bytes]));
        prop_assert_eq!(&whole, &oracle(&pieces));
    }
}
