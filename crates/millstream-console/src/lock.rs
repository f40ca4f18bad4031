//! Who may act: nobody, anyone, or whoever has the key. A browser sends the key once, and then a cookie that stands for it.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use millstream::api_keys::HashedKey;
use millstream::http::{Body, Problem, bearer};
use serde::Deserialize;

use crate::{Actions, Console};

/// Where the key is sent.
const LOGIN: &str = "/api/login";
const NAME: &str = "millstream-console";
/// How long a login lasts: a day's work.
const LASTS: Duration = Duration::from_secs(12 * 3600);
/// The most logins at a time; beyond it the oldest ends.
const MOST: usize = 64;

/// Who may act.
#[derive(Debug)]
pub(crate) enum Acting {
    /// Nobody, and why.
    Nobody(String),
    /// Whoever can reach the console.
    Anyone { elsewhere: bool },
    /// Whoever has the key.
    WithKey(Lock),
}

impl Acting {
    pub(crate) fn of(actions: Actions, key: Option<HashedKey>, address: IpAddr) -> Self {
        match (actions, key) {
            (Actions::No, _) => Self::Nobody("start the console with --allow-actions to enable actions".into()),
            (_, Some(key)) => Self::WithKey(Lock { key, logins: Mutex::default() }),
            (Actions::Yes, None) if !address.is_loopback() => Self::Nobody(format!(
                "the console listens on {address}, where others can reach it, and has no key: give it one to enable actions \
                 (CONSOLE_KEY, which deploy/secrets.sh makes), or for a demo let anyone act with --allow-actions=anyone"
            )),
            (_, None) => Self::Anyone { elsewhere: !address.is_loopback() },
        }
    }

    /// Why nobody may act, if that is so.
    pub(crate) fn refusal(&self) -> Option<&str> {
        if let Self::Nobody(why) = self { Some(why) } else { None }
    }

    /// Says in the log what should not go unnoticed.
    pub(crate) fn tell(&self) {
        match self {
            Self::Nobody(why) => tracing::info!("read-only: {why}"),
            Self::Anyone { elsewhere: true } => {
                tracing::warn!("whoever can reach the console may act: give it a key (CONSOLE_KEY)");
            }
            Self::Anyone { elsewhere: false } | Self::WithKey(_) => {}
        }
    }

    /// Whether a request that is not a query may go on.
    pub(crate) fn admits(&self, path: &str, headers: &HeaderMap) -> Result<(), Problem> {
        match self {
            Self::Nobody(why) => Err(Problem::new(StatusCode::FORBIDDEN, format!("the console is read-only: {why}"))),
            Self::Anyone { .. } => Ok(()),
            Self::WithKey(lock) if path == LOGIN || lock.is_open(headers, Instant::now()) => Ok(()),
            Self::WithKey(_) => Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "actions need the console's key: log in on the page, or send it as `Authorization: Bearer KEY`",
            )),
        }
    }
}

/// The key, and the logins by it. Both are kept as hashes, and the logins end with the process.
#[derive(Debug)]
pub(crate) struct Lock {
    key: HashedKey,
    /// The oldest first, each with its end.
    logins: Mutex<Vec<(HashedKey, Instant)>>,
}

impl Lock {
    /// The value of the cookie for a new login, if this is the key.
    fn log_in(&self, key: &str, now: Instant) -> Result<Option<String>, getrandom::Error> {
        if !self.key.is_of(key) {
            return Ok(None);
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        let token = bytes.iter().fold(String::new(), |mut token, byte| {
            // Writing to a string cannot fail.
            let _ = write!(token, "{byte:02x}");
            token
        });
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        logins.retain(|(_, end)| *end > now);
        if logins.len() == MOST {
            logins.remove(0);
        }
        logins.push((HashedKey::of(&token), now + LASTS));
        Ok(Some(token))
    }

    fn is_open(&self, headers: &HeaderMap, now: Instant) -> bool {
        if bearer(headers).is_some_and(|key| self.key.is_of(key)) {
            return true;
        }
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut ours = cookies.flat_map(|all| all.split(';')).filter_map(|one| {
            let (name, value) = one.trim().split_once('=')?;
            (name == NAME).then_some(value)
        });
        let logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        ours.any(|token| logins.iter().any(|(login, end)| *end > now && login.is_of(token)))
    }
}

pub(crate) fn routes() -> Router<Arc<Console>> {
    Router::new().route(LOGIN, post(log_in))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    key: String,
}

async fn log_in(State(console): State<Arc<Console>>, Body(login): Body<Login>) -> Result<Response, Problem> {
    let Acting::WithKey(lock) = &console.acting else {
        return Err(Problem::not_found("the console has no key, and needs no login"));
    };
    let token = lock.log_in(&login.key, Instant::now()).map_err(|error| {
        tracing::error!(%error, "no login without random bytes");
        Problem::unavailable("the system has no random bytes: try again")
    })?;
    let Some(token) = token else {
        tracing::warn!("somebody has tried to log in with a wrong key");
        return Err(Problem::new(StatusCode::FORBIDDEN, "this is not the console's key"));
    };
    let cookie = format!("{NAME}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}", LASTS.as_secs());
    Ok((StatusCode::OK, [(SET_COOKIE, cookie)], axum::Json(serde_json::json!({}))).into_response())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    fn lock() -> Lock {
        Lock { key: HashedKey::of("open sesame"), logins: Mutex::default() }
    }

    fn with(name: axum::http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn without_a_key_it_acts_only_where_nobody_else_can_reach_it_unless_that_is_asked_for() {
        let key = || Some(HashedKey::of("open sesame"));
        for address in [HERE, ANYWHERE, IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            assert!(matches!(Acting::of(Actions::No, key(), address), Acting::Nobody(_)), "{address}");
            assert!(matches!(Acting::of(Actions::Yes, key(), address), Acting::WithKey(_)), "{address}");
            assert!(matches!(Acting::of(Actions::ByAnyone, key(), address), Acting::WithKey(_)), "{address}");
            let without = Acting::of(Actions::Yes, None, address);
            assert_eq!(without.refusal().is_none(), address.is_loopback(), "{address}");
            assert!(without.refusal().is_none_or(|why| why.contains("CONSOLE_KEY")), "{without:?}");
            let elsewhere = !address.is_loopback();
            let anyone = Acting::of(Actions::ByAnyone, None, address);
            assert!(matches!(anyone, Acting::Anyone { elsewhere: said } if said == elsewhere), "{address}");
        }
    }

    #[test]
    fn a_login_lasts_for_its_time_and_only_its_own_cookie_stands_for_it() {
        let (lock, now) = (lock(), Instant::now());
        assert_eq!(lock.log_in("open", now).unwrap(), None);
        let token = lock.log_in("open sesame", now).unwrap().unwrap();
        assert!(lock.is_open(&with(COOKIE, &format!("a=b; {NAME}={token}")), now));
        assert!(lock.is_open(&with(axum::http::header::AUTHORIZATION, "Bearer open sesame"), now));
        for cookie in ["", "a=b", &format!("{NAME}="), &format!("{NAME}={}", &token[1..]), &format!("other={token}")] {
            assert!(!lock.is_open(&with(COOKIE, cookie), now), "{cookie}");
        }
        assert!(!lock.is_open(&with(COOKIE, &format!("{NAME}={token}")), now + LASTS), "it has ended");
        assert!(!format!("{lock:?}").contains(&token));
    }

    #[test]
    fn more_logins_than_there_may_be_end_the_oldest() {
        let (lock, now) = (lock(), Instant::now());
        let tokens: Vec<String> = (0..=MOST).map(|_| lock.log_in("open sesame", now).unwrap().unwrap()).collect();
        let open = |token: &String| lock.is_open(&with(COOKIE, &format!("{NAME}={token}")), now);
        assert!(!open(&tokens[0]) && tokens[1..].iter().all(open));
    }
}
