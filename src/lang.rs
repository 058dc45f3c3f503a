//! The languages of reports, and the one catalogue of their texts (`locales/*.ftl`, Project Fluent).

use fluent_bundle::{FluentArgs, FluentBundle, FluentResource};
use schemars::JsonSchema;
use serde::Deserialize;
use unic_langid::{LanguageIdentifier, langid};

/// A language of the reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Lang {
    /// English.
    En,
    /// Korean.
    Ko,
}

impl Lang {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::En, Self::Ko];

    /// That of the locale: Korean where it is Korean, English everywhere else.
    pub fn of_locale() -> Self {
        match sys_locale::get_locale() {
            Some(locale) if locale.to_lowercase().starts_with("ko") => Self::Ko,
            _ => Self::En,
        }
    }

    /// The tag of BCP 47.
    pub fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Ko => "ko",
        }
    }

    fn identifier(self) -> LanguageIdentifier {
        match self {
            Self::En => langid!("en"),
            Self::Ko => langid!("ko"),
        }
    }

    /// The catalogue's file.
    fn source(self) -> &'static str {
        match self {
            Self::En => include_str!("../locales/en.ftl"),
            Self::Ko => include_str!("../locales/ko.ftl"),
        }
    }
}

/// The texts in one language.
pub struct Texts {
    lang: Lang,
    bundle: FluentBundle<FluentResource>,
}

impl Texts {
    /// The catalogue of a language.
    pub fn new(lang: Lang) -> Self {
        let mut bundle = FluentBundle::new(vec![lang.identifier()]);
        // Marks around arguments would be seen in terminals and break byte-wise searches.
        bundle.set_use_isolating(false);
        let resource = FluentResource::try_new(lang.source().to_owned());
        // Held by a test: the catalogue is part of the program.
        bundle.add_resource(resource.unwrap_or_else(|(resource, _)| resource)).ok();
        Self { lang, bundle }
    }

    /// Which language this is.
    pub fn lang(&self) -> Lang {
        self.lang
    }

    /// A text without arguments.
    pub fn get(&self, key: &str) -> String {
        self.with(key, &[])
    }

    /// A text with arguments; numbers come formatted.
    pub fn with(&self, key: &str, arguments: &[(&str, &str)]) -> String {
        let pattern = self.bundle.get_message(key).and_then(|message| message.value());
        let Some(pattern) = pattern else {
            // A test holds that no key is missing; should one be, its name says more than nothing.
            debug_assert!(false, "no text `{key}` in {:?}", self.lang);
            return key.to_owned();
        };
        let arguments: FluentArgs<'_> = arguments.iter().map(|(name, value)| (*name, *value)).collect();
        let mut errors = Vec::new();
        let text = self.bundle.format_pattern(pattern, Some(&arguments), &mut errors).into_owned();
        debug_assert!(errors.is_empty(), "{key}: {errors:?}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogues_are_well_formed() {
        for lang in Lang::ALL {
            assert!(FluentResource::try_new(lang.source().to_owned()).is_ok(), "{lang:?}");
            assert!(!Texts::new(lang).get("verdict-pass").is_empty());
        }
    }
}
