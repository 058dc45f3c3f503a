use proptest::prelude::*;
use serde_json::json;

use super::*;

fn decoder() -> Decoder {
    Decoder::new("/", 1 << 16)
}

/// The packet of a text that is one.
fn read(text: &str) -> Result<Option<Packet>, Malformed> {
    Ok(decoder().text(text)?.map(|(packet, size)| {
        assert_eq!(size, text.len());
        packet
    }))
}

#[test]
fn frames_are_a_digit_and_their_data() {
    assert_eq!(Frame::read("0{}"), Ok(Frame::Open("{}")));
    assert_eq!(Frame::read("1"), Ok(Frame::Close));
    assert_eq!(Frame::read("2"), Ok(Frame::Ping));
    assert_eq!(Frame::read("3probe"), Ok(Frame::Pong("probe")));
    assert_eq!(Frame::read("4hé"), Ok(Frame::Message("hé")));
    assert_eq!(Frame::read("5"), Ok(Frame::Nothing));
    assert_eq!(Frame::read("6"), Ok(Frame::Nothing));
    assert_eq!(Frame::read("bAQID"), Ok(Frame::Binary(vec![1, 2, 3])));
    for wrong in ["", "7", "x", "é", "b!", "<html>"] {
        assert!(Frame::read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_payload_is_packets_with_a_separator_between() {
    let mut payload = String::new();
    for packet in ["4hello", "2", "bAQID"] {
        add_to(&mut payload, packet);
    }
    assert_eq!(payload, "4hello\u{1e}2\u{1e}bAQID");
    let (first, rest) = first_of(&payload);
    assert_eq!((first, first_of(rest)), ("4hello", ("2", "bAQID")));
    assert_eq!(first_of("2"), ("2", ""));
}

#[test]
fn a_handshake_says_how_long_a_session_may_be_silent() {
    let sound =
        r#"0{"sid":"lv_V","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
    let handshake = Handshake::read(sound).unwrap();
    assert_eq!((handshake.sid.as_str(), handshake.silence()), ("lv_V", Duration::from_secs(45)));
    assert_eq!((handshake.upgrades(), handshake.max_payload()), (true, 1_000_000));
    let old = r#"0{"sid":"a","upgrades":[],"pingInterval":18446744073709551615,"pingTimeout":1}"#;
    let handshake = Handshake::read(old).unwrap();
    assert_eq!((handshake.silence(), handshake.upgrades()), (LONGEST_SILENCE, false));
    assert_eq!(handshake.max_payload(), usize::MAX);
    let long = format!(r#"0{{"sid":"{}","upgrades":[],"pingInterval":1,"pingTimeout":1}}"#, "x".repeat(ID + 1));
    for wrong in ["", "0", "4{}", r#"0{"sid":""}"#, &sound.replace("25000", "-1"), &sound.replace("lv_V", ""), &long] {
        assert!(Handshake::read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn packets_mean_what_the_protocol_says() {
    assert_eq!(read(r#"0{"sid":"x"}"#), Ok(Some(Packet::Connect)));
    assert_eq!(read("0"), Ok(Some(Packet::Connect)));
    assert_eq!(read("1"), Ok(Some(Packet::Disconnect)));
    let error = json!({ "message": "Not authorized" });
    assert_eq!(read(r#"4{"message":"Not authorized"}"#), Ok(Some(Packet::ConnectError(error))));
    assert_eq!(read(r#"2["foo",1]"#), Ok(Some(Packet::Event("foo".to_owned(), json!([1])))));
    assert_eq!(read(r#"212["foo"]"#), Ok(Some(Packet::Event("foo".to_owned(), json!([])))));
    assert_eq!(read(r#"2[7,"a"]"#), Ok(Some(Packet::Event("7".to_owned(), json!(["a"])))));
    assert_eq!(read(r#"313["bar"]"#), Ok(Some(Packet::Ack(13, json!(["bar"])))));
    // Somebody else's, whatever is in it.
    assert_eq!(read(r#"2/admin,["foo"]"#), Ok(None));
    assert_eq!(read("1/admin"), Ok(None));
    let mut chat = Decoder::new("/chat", 100);
    let heard = Packet::Event("foo".to_owned(), json!([]));
    assert_eq!(chat.text(r#"2/chat,5["foo"]"#), Ok(Some((heard, 15))));
    assert_eq!(chat.text(r#"2["foo"]"#), Ok(None));
    assert_eq!(chat.text("1/chat,"), Ok(Some((Packet::Disconnect, 7))));
    assert_eq!(chat.text("0/chat?token=1,"), Ok(Some((Packet::Connect, 15))));
}

#[test]
fn what_is_no_packet_is_told() {
    for wrong in [
        "",
        "7",
        "2",
        "2[]",
        "2[null]",
        "2{}",
        "2[",
        "2x",
        "3[]",
        "31{}",
        "0[]",
        "0x",
        "4[",
        "5[]",
        "5-[]",
        "50-[]",
        "565-[]",
        "5+1-[]",
        "299999999999999999999[]",
        "é",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    assert_eq!(read("2<html>").unwrap_err().to_string(), "no JSON: 2<html>");
    assert!(decoder().binary(b"x").is_err());
    assert_eq!(Decoder::new("/", 5).text("2[123]").unwrap_err().to_string(), "a packet larger than 5 bytes");
}

#[test]
fn attachments_are_put_into_their_places() {
    let mut one = decoder();
    let text = r#"52-["up",{"a":[{"_placeholder":true,"num":1}]},{"_placeholder":true,"num":0}]"#;
    assert_eq!(one.text(text), Ok(None));
    assert_eq!(one.binary(&[1, 2, 3]), Ok(None));
    let up = Packet::Event("up".to_owned(), json!([{ "a": ["/w=="] }, "AQID"]));
    assert_eq!(one.binary(&[255]), Ok(Some((up, text.len() + 4))));
    assert_eq!(one.text(r#"61-3[{"_placeholder":true,"num":0}]"#), Ok(None));
    assert_eq!(one.binary(b""), Ok(Some((Packet::Ack(3, json!([""])), 35))));
    // Those of another namespace are passed over with their packet.
    assert_eq!(one.text(r#"51-/admin,["up",{"_placeholder":true,"num":0}]"#), Ok(None));
    assert_eq!(one.binary(b"x"), Ok(None));
    assert_eq!(one.text("0"), Ok(Some((Packet::Connect, 1))));
}

#[test]
fn attachments_are_bounded_and_used_once() {
    for places in [r#"{"_placeholder":true,"num":1}"#, r#"{"_placeholder":true}"#] {
        let mut one = decoder();
        assert_eq!(one.text(&format!(r#"51-["up",{places}]"#)), Ok(None));
        assert!(one.binary(b"x").is_err(), "{places}");
    }
    let place = r#"{"_placeholder":true,"num":0}"#;
    let mut twice = decoder();
    assert_eq!(twice.text(&format!(r#"51-["up",{place},{place}]"#)), Ok(None));
    assert!(twice.binary(b"x").is_err());
    let mut small = Decoder::new("/", 100);
    assert_eq!(small.text(&format!(r#"52-["up",{place}]"#)), Ok(None));
    assert_eq!(small.binary(&[0; 40]), Ok(None));
    assert!(small.binary(&[0; 40]).is_err());
    let mut torn = decoder();
    assert_eq!(torn.text(&format!(r#"51-["up",{place}]"#)), Ok(None));
    assert!(torn.text(r#"2["foo"]"#).is_err());
}

/// Any JSON without floating-point numbers, whose text may differ, and without what looks like a place.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{0,3}", inner, 0..4)
                .prop_map(|table| Value::Object(table.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_sent_is_read_the_same(
        namespace in prop_oneof![Just("/".to_owned()), "/[a-z/]{0,5}"],
        id in any::<Option<u64>>(),
        name in any::<String>(),
        arguments in proptest::collection::vec(any_json(), 0..3),
    ) {
        let sent = event(&namespace, id, &name, Value::from(arguments.clone()));
        let Ok(Frame::Message(text)) = Frame::read(&sent) else { panic!("{sent}") };
        let read = Decoder::new(&namespace, usize::MAX).text(text);
        prop_assert_eq!(read, Ok(Some((Packet::Event(name, Value::from(arguments)), text.len()))));
        let head = Head::read(text).unwrap();
        prop_assert_eq!((head.kind, head.id, head.namespace), (Kind::Event, id, namespace.as_str()));
    }

    #[test]
    fn connections_are_asked_for_and_left(namespace in "/[a-z]{0,5}", auth in any::<Option<bool>>()) {
        let auth = auth.map(|token| json!({ "token": token }));
        let asked = connect(&namespace, auth.as_ref());
        let head = Head::read(&asked[1..]).unwrap();
        prop_assert_eq!((head.kind, head.namespace), (Kind::Connect, namespace.as_str()));
        prop_assert_eq!(json_of(&head, "").unwrap(), auth.unwrap_or_default());
        let left = disconnect(&namespace);
        prop_assert_eq!(Decoder::new(&namespace, 99).text(&left[1..]), Ok(Some((Packet::Disconnect, left.len() - 1))));
    }

    #[test]
    fn attachments_come_back_in_base64(blobs in proptest::collection::vec(any::<Vec<u8>>(), 1..5)) {
        let places: Vec<Value> = (0..blobs.len()).map(|num| json!({ "_placeholder": true, "num": num })).collect();
        let mut list = vec![json!("up")];
        list.extend(places);
        let mut one = Decoder::new("/", usize::MAX);
        prop_assert_eq!(one.text(&format!("5{}-{}", blobs.len(), Value::from(list))), Ok(None));
        let mut last = None;
        for blob in &blobs {
            prop_assert_eq!(&last, &None);
            last = one.binary(blob).unwrap().map(|(packet, _)| packet);
        }
        let texts: Vec<Value> = blobs.iter().map(|blob| Value::from(STANDARD.encode(blob))).collect();
        prop_assert_eq!(last, Some(Packet::Event("up".to_owned(), Value::from(texts))));
    }

    #[test]
    fn nothing_that_comes_panics(
        texts in proptest::collection::vec(
            prop_oneof![any::<String>(), "[0-6]{1,2}-?(/[a-z]{0,2},?)?[0-9]{0,20}[\\[\\]{}\"a,0-9]{0,9}"],
            0..6,
        ),
        bytes in any::<Vec<u8>>(),
    ) {
        let mut one = Decoder::new("/", 64);
        for text in &texts {
            let _ = (Frame::read(text), Handshake::read(text), first_of(text));
            let _ = one.text(text);
            let _ = one.binary(&bytes);
        }
        prop_assert!(one.waiting.is_none_or(|waiting| waiting.size <= 64 && waiting.wanted <= ATTACHMENTS));
    }
}
