//! What LibreChat must be told so that its model is this mock: printed, to be pasted.

use std::fmt::Write as _;

use crate::behaviour::Behaviour;

/// The custom endpoint for `librechat.yaml` and the settings of its environment, with the mock's
/// API at `base` (such as `http://127.0.0.1:8089/v1`).
///
/// Keys as in <https://www.librechat.ai/docs/configuration/librechat_yaml/object_structure/custom_endpoint>;
/// titles are off, since each costs one more call of the model in a new conversation.
pub(crate) fn yaml(base: &str, behaviour: &Behaviour) -> String {
    // JSON texts are YAML texts.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let models: Vec<String> = behaviour.models.keys().map(|name| quoted(name)).collect();
    let key = behaviour.api_key.as_deref().unwrap_or("none-needed");
    let mut out = String::new();
    let _ = write!(
        out,
        "# librechat.yaml: the mock LLM as a custom endpoint. If LibreChat runs in a container, 127.0.0.1 is not this
# machine there: start the mock with --listen 0.0.0.0:8089 and write this machine's address (with Docker Desktop
# host.docker.internal) into baseURL.
version: 1.3.1
endpoints:
  custom:
    - name: \"Mock\"
      apiKey: {}
      baseURL: {}
      models:
        default: [{}]
        fetch: false
      titleConvo: false
      modelDisplayLabel: \"Mock\"

# .env of the deployment, for the time of the test; restart it after the change, and take it back afterwards.
# BAN_VIOLATIONS=false
# LIMIT_MESSAGE_IP=false
# LIMIT_MESSAGE_USER=false
# LIMIT_CONCURRENT_MESSAGES=false
# LOGIN_MAX=1000000
# REGISTER_MAX=1000000
",
        quoted(key),
        quoted(base),
        models.join(", "),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_names_the_mock_its_models_and_the_settings() {
        let behaviour = Behaviour::from_toml("[models.fast]\n[models.\"a \\\"b\\\"\"]").unwrap();
        let text = yaml("http://10.0.0.5:8089/v1", &behaviour);
        assert!(text.contains("baseURL: \"http://10.0.0.5:8089/v1\""), "{text}");
        assert!(text.contains("\"fast\"") && text.contains("\"a \\\"b\\\"\""), "{text}");
        for setting in ["BAN_VIOLATIONS=false", "LIMIT_CONCURRENT_MESSAGES=false", "LOGIN_MAX=1000000"] {
            assert!(text.contains(setting));
        }
    }
}
