//! The cookies of one user, kept as a browser keeps them: what a load balancer sets so that a user's requests go to
//! one server is sent with the next request.

use cookie::Cookie;
use http::{HeaderMap, HeaderValue, header};

use crate::secret::Secret;

/// The most that are kept.
const MOST: usize = 64;
/// The longest that one may be, name and value together, in bytes (RFC 6265, 6.1).
const LONGEST: usize = 4_096;

/// What one user's cookies are. All that is sent goes to one target, so domains and paths are not looked at.
#[derive(Debug, Default)]
pub(in crate::driver) struct Jar(Vec<(String, Secret)>);

impl Jar {
    /// Keeps what a response sets, new ones instead of the old.
    pub(in crate::driver) fn take(&mut self, headers: &HeaderMap) {
        for cookie in headers.get_all(header::SET_COOKIE) {
            let Some(cookie) = cookie.to_str().ok().and_then(|text| Cookie::parse(text).ok()) else { continue };
            self.0.retain(|(name, _)| name != cookie.name());
            let gone = cookie.value().is_empty() || cookie.max_age().is_some_and(|age| age.is_zero());
            let fits = self.0.len() < MOST && cookie.name().len() + cookie.value().len() <= LONGEST;
            if !gone && fits {
                self.0.push((cookie.name().to_owned(), Secret::new(cookie.value())));
            }
        }
    }

    /// Adds them to a request's headers, behind cookies that are there already.
    pub(in crate::driver) fn add_to(&self, headers: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        let before = headers.get(header::COOKIE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let own = self.0.iter().map(|(name, value)| format!("{name}={}", value.expose()));
        let text = before.into_iter().chain(own).collect::<Vec<_>>().join("; ");
        if let Ok(mut value) = HeaderValue::from_str(&text) {
            value.set_sensitive(true);
            headers.insert(header::COOKIE, value);
        }
    }

    /// What must not be shown.
    pub(in crate::driver) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.0.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(jar: &mut Jar, cookies: &[&str]) {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(header::SET_COOKIE, HeaderValue::from_str(cookie).unwrap());
        }
        jar.take(&headers);
    }

    fn sent(jar: &Jar, own: Option<&'static str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.extend(own.map(|own| (header::COOKIE, HeaderValue::from_static(own))));
        jar.add_to(&mut headers);
        headers.get(header::COOKIE).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn what_is_set_is_sent_until_it_is_taken_back() {
        let mut jar = Jar::default();
        assert_eq!(sent(&jar, None), None);
        assert_eq!(sent(&jar, Some("a=1")).as_deref(), Some("a=1"));
        set(&mut jar, &["lb=one; Path=/; HttpOnly", "io=x=y", "no cookie"]);
        assert_eq!(sent(&jar, Some("a=1")).as_deref(), Some("a=1; lb=one; io=x=y"));
        set(&mut jar, &["lb=two", "io=; Max-Age=0"]);
        assert_eq!(sent(&jar, None).as_deref(), Some("lb=two"));
        set(&mut jar, &["lb=three; Max-Age=0"]);
        assert_eq!(sent(&jar, None), None);
    }

    #[test]
    fn a_server_cannot_fill_the_memory_with_them() {
        let mut jar = Jar::default();
        set(&mut jar, &[&format!("large={}", "x".repeat(LONGEST))]);
        for number in 0..200 {
            set(&mut jar, &[&format!("c{number}=1")]);
        }
        assert_eq!(jar.secrets().count(), MOST);
        assert!(jar.0.iter().all(|(name, _)| name != "large"));
    }
}
