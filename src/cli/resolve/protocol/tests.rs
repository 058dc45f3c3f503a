use super::*;
use crate::scenario::file::{ScenarioFile, SsePreset};
use crate::scenario::{Condition, Field, Part, Source, TokenAt};
use crate::secret::Secret;

/// What is resolved of a scenario, and its problems.
fn read(text: &str, profile: Profile) -> (Option<Described>, Vec<String>) {
    let file: ScenarioFile = toml::from_str(text).unwrap();
    let mut wish = Wish::default();
    wish.file = file;
    let mut problems = Problems { wish: &wish, found: Vec::new() };
    let described = described(&wish, profile, &mut problems);
    if let Some(described) = &described {
        described.wants(&wish, &mut problems);
    }
    let told = problems.found.iter().map(ToString::to_string).collect();
    (described, told)
}

fn sse(text: &str) -> (SsePlan, Site) {
    let (described, problems) = read(text, Profile::Sse);
    assert_eq!(problems, [""; 0]);
    match described.unwrap() {
        Described { protocol: ProtocolPlan::Sse(plan), site } => (*plan, site),
        _ => panic!("no protocol over HTTP"),
    }
}

/// Every expected text is in a problem of its own, and there are no others.
fn hold(found: &[String], expected: &[&str]) {
    for part in expected {
        assert!(found.iter().any(|problem| problem.contains(part)), "{part}: {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn a_protocol_over_http_is_what_is_written() {
    let (plan, site) = sse(r#"
        target.model = "m"
        target.values_env = { tenant = "TENANT" }
        [target.sse.request]
        path = "/chat?tenant={{tenant}}"
        headers = { x-user = "{{user.number}}", authorization = "Bearer {{token}}" }
        body = '{"text": "{{prompt}}", "conversation": "{{conversation}}", "model": "{{model}}"}'
        capture = { stream = "/id", place = "header:Location" }
        [target.sse.stream]
        path = "/chat/{{stream}}"
        [target.sse.cancel]
        method = "delete"
        path = "/chat/{{stream}}"
        [target.sse.reply]
        token = "/delta"
        token_when = { event = "token", "/final" = false }
        end = ["[DONE]", { "/type" = "done" }]
        error = { "/error" = "*" }
        capture = { conversation = "/conversation" }
        [target.site.login]
        path = "/login"
        body = '{"user": "{{user.email}}"}'
        capture = { token = "/token" }
        [[target.site.page]]
        path = "/"
        [target.site.leave]
        path = "/logout"
        method = "POST"
    "#);
    assert_eq!((plan.request.method.as_str(), plan.request.body.is_some()), ("POST", true));
    let names: Vec<&str> = plan.request.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["authorization", "x-user"]);
    assert_eq!(plan.request.capture[0], ("place".to_owned(), Source::Header(http::header::LOCATION)));
    assert_eq!(plan.request.capture[1], ("stream".to_owned(), Source::Pointer("/id".to_owned())));
    assert_eq!(plan.streaming().method, http::Method::GET);
    assert_eq!(plan.cancel.as_ref().map(|cancel| cancel.method.as_str()), Some("DELETE"));
    assert_eq!((plan.framing, plan.resume), (Framing::Sse, Resume::WithId));
    assert_eq!(plan.reply.token, TokenAt::Pointer("/delta".to_owned()));
    let field = |at, is: Option<Value>| Field { at, is };
    let when =
        vec![field(Part::Pointer("/final".to_owned()), Some(false.into())), field(Part::Event, Some("token".into()))];
    assert_eq!(plan.reply.token_when, Some(Condition::All(when)));
    let error = vec![field(Part::Pointer("/error".to_owned()), None)];
    assert_eq!(plan.reply.error, Some(Condition::All(error)));
    assert!(matches!(plan.reply.end, Some(Condition::Any(ends)) if ends.len() == 2));
    assert_eq!((site.page.len(), site.history.len()), (1, 0));
    assert_eq!((site.login.unwrap().method.as_str(), site.leave.unwrap().method.as_str()), ("POST", "POST"));
}

#[test]
fn every_preset_resolves() {
    for preset in [SsePreset::OpenaiResponses, SsePreset::AnthropicMessages, SsePreset::Ollama] {
        let name = preset.name();
        let (plan, _) = sse(&format!("target.model = \"m\"\n[target.sse]\npreset = \"{name}\"\n"));
        assert_eq!(plan.preset.as_deref(), Some(name));
        assert_eq!((plan.resume, plan.request.method.as_str()), (Resume::Never, "POST"));
        assert_eq!(plan.framing == Framing::Lines, preset == SsePreset::Ollama);
        assert_eq!(plan.request.names().any(|name| name == API_KEY), preset == SsePreset::AnthropicMessages);
    }
}

#[test]
fn every_problem_of_a_request_at_its_path() {
    let (_, problems) = read(
        r#"
        target.values_env = { prompt = "X" }
        [target.sse]
        resume = true
        [target.sse.request]
        method = "PSOT"
        path = "chat"
        headers = { "a b" = "x", content-length = "5", x-a = "{{promt}}" }
        body = '{"text": {{uuid}}}'
        capture = { model = "/id", id = "id", place = "header:a b", "a b" = "/x" }
        [target.sse.reply]
        token = "delta"
        token_when = {}
        end = [{ "type" = "done" }, { event = 5 }]
        error_text = "/why"
        retry_after = "/seconds"
        heartbeat = []
        [[target.site.page]]
        path = "/a b"
        "#,
        Profile::Sse,
    );
    hold(
        &problems,
        &[
            "target.values_env.prompt: {{prompt}} is something else already",
            "target.sse.request.method: unknown method `PSOT`; did you mean `POST`?",
            "target.sse.request.path: `chat` should begin with /",
            "target.sse.request.headers.a b: `a b` has a name or value that cannot be sent",
            "target.sse.request.headers.content-length: is told by the request itself",
            "target.sse.request.headers.x-a: unknown place `promt`; did you mean `prompt`?",
            "target.sse.request.body: is no JSON",
            "target.sse.request.capture.model: {{model}} is something else already",
            "target.sse.request.capture.id: `id` is no JSON Pointer",
            "target.sse.request.capture.place: no header has such a name",
            "target.sse.request.capture.a b: `a b` is no name",
            "target.sse.reply.token: `delta` is no JSON Pointer",
            "target.sse.reply.token_when: says nothing",
            "target.sse.reply.end[0].type: `type` is no JSON Pointer",
            "target.sse.reply.end[1].event: is no name of an event",
            "target.sse.reply.error_text: wants `error`",
            "target.sse.reply.retry_after: wants `rate_limited`",
            "target.sse.reply.heartbeat: is an empty list",
            "target.sse.request.body: what a user says must reach the model",
            "target.sse.resume: the request would say it once more",
            "target.site.page[0].path: `/a b` is no path",
        ],
    );
}

#[test]
fn what_is_missing_is_said() {
    let (_, problems) = read("", Profile::Websocket);
    hold(&problems, &["target.profile: wants [target.websocket] in a scenario"]);
    let (_, problems) = read("[target.sse]\n", Profile::Sse);
    hold(&problems, &["target.sse.request: is missing", "target.sse.reply.token: is missing", "target.sse.reply.end"]);
    let (_, problems) =
        read("[target.sse]\npreset = \"ollama\"\n[target.site]\n[target.values_env]\na = \"A\"\n", Profile::Openai);
    hold(
        &problems,
        &[
            "target.sse: is for the profile sse",
            "target.site: is for the profiles sse, websocket and socketio",
            "target.values_env: is for the profiles",
        ],
    );
    let (_, problems) = read("[target.sse]\npreset = \"ollama\"\n", Profile::Sse);
    hold(&problems, &["target.model: {{model}} stands in a text"]);
}

#[test]
fn places_of_accounts_want_accounts() {
    let text = |name: &str| {
        format!(
            "[target.sse.request]\npath = \"/x\"\nheaders = {{ a = \"{{{{{name}}}}}\" }}\n\
             body = '{{\"a\": \"{{{{prompt}}}}\"}}'\n\
             [target.sse.reply]\ntoken = \"text\"\nend_with_body = true\n"
        )
    };
    hold(&read(&text("user.token"), Profile::Sse).1, &["accounts.file: {{user.token}} stands in a text"]);
    hold(&read(&text("user.email"), Profile::Sse).1, &[]);
    let listed = |name: &str| format!("accounts.file = \"list.csv\"\n{}", text(name));
    hold(&read(&listed("user.number"), Profile::Sse).1, &["accounts.file: no text has a place for it"]);
    let (described, problems) = read(&listed("user.token"), Profile::Sse);
    hold(&problems, &[]);
    let Described { protocol, site } = described.unwrap();
    let bearer = Credentials::Bearer(Secret::new("t"));
    let password = Credentials::Password { email: "a@b.test".to_owned(), password: Secret::new("p") };
    assert_eq!(lacking(&protocol, &site, std::slice::from_ref(&bearer)), None);
    let lacks = lacking(&protocol, &site, &[bearer, password]);
    assert!(lacks.is_some_and(|message| message.contains("{{user.token}}")));
}

#[test]
fn sockets_are_what_is_written() {
    let (described, problems) = read(
        r#"
        [target.websocket]
        path = "/ws?user={{user.number}}"
        open = ['{"type": "hello"}']
        opened = { "/type" = "ready" }
        capture = { session = "/session" }
        message = '{"text": "{{prompt}}", "session": "{{session}}"}'
        ping_interval = "25s"
        reply = { token = "/delta", end = { "/type" = "done" } }
        "#,
        Profile::Websocket,
    );
    hold(&problems, &[]);
    let Some(ProtocolPlan::WebSocket(plan)) = described.map(|described| described.protocol) else {
        panic!("no socket")
    };
    let seconds = std::time::Duration::from_secs;
    assert_eq!((plan.ping, plan.reconnect), (Some((seconds(25), seconds(20))), seconds(1)));
    assert_eq!((plan.deflate, plan.message_limit, plan.open.len()), (true, 1 << 20, 1));
    let (described, problems) = read(
        r#"
        [target.socketio]
        event = "message"
        arguments = '[{"text": "{{prompt}}"}]'
        cancel_event = "stop"
        reply = { token = "/0/text", token_when = { event = "token" }, end = { event = "done" } }
        "#,
        Profile::Socketio,
    );
    hold(&problems, &[]);
    let Some(ProtocolPlan::SocketIo(plan)) = described.map(|described| described.protocol) else { panic!("no socket") };
    assert_eq!((plan.path.as_str(), plan.namespace.as_str()), ("/socket.io/", "/"));
    assert!(matches!(&plan.cancel, Some((event, arguments)) if event == "stop" && arguments.source() == "[]"));
}

#[test]
fn every_problem_of_sockets() {
    let (_, problems) = read(
        r#"
        [target.websocket]
        path = "ws"
        subprotocols = ["a b"]
        headers = { sec-websocket-key = "x" }
        capture = { session = "/session" }
        message = '{"text": "hello",}'
        heartbeat_reply = "pong"
        ping_timeout = "5s"
        message_limit = 5
        reconnect = "0s"
        reply = { token = "/delta", end_with_body = true }
        "#,
        Profile::Websocket,
    );
    hold(
        &problems,
        &[
            "target.websocket.path: `ws` should begin with /",
            "target.websocket.subprotocols[0]: `a b` is no subprotocol",
            "target.websocket.headers.sec-websocket-key: is told by the opening itself",
            "target.websocket.capture: wants `opened`",
            "target.websocket.message: is no JSON",
            "target.websocket.message: what a user says must reach the model",
            "target.websocket.heartbeat_reply: wants `reply.heartbeat`",
            "target.websocket.ping_timeout: wants `ping_interval`",
            "target.websocket.message_limit: should be from 1024 to 67108864 bytes",
            "target.websocket.reconnect: should be above 0",
            "target.websocket.reply.end_with_body: is for the profile sse",
        ],
    );
    let (_, problems) = read(
        r#"
        [target.socketio]
        path = "/{{uuid}}"
        namespace = "chat"
        event = "connect"
        arguments = "{{prompt}}"
        auth = "x"
        cancel_arguments = "[]"
        reply = { token = "/0", end = { event = "done" } }
        "#,
        Profile::Socketio,
    );
    hold(
        &problems,
        &[
            "target.socketio.path: is the same for everybody",
            "target.socketio.namespace: `chat` should begin with /",
            "target.socketio.event: `connect` is an event of Socket.IO itself",
            "target.socketio.arguments: is no JSON",
            "target.socketio.auth: is no JSON",
            "target.socketio.cancel_arguments: want `cancel_event`",
        ],
    );
    let (_, problems) = read("[target.socketio]\nreply = { token = \"/0\", end = \"x\" }\n", Profile::Socketio);
    hold(&problems, &["target.socketio.event: is missing", "target.socketio.arguments: are missing"]);
}
