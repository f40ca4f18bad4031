//! The addresses of a MongoDB, and the login.

use std::fmt;
use std::path::PathBuf;

use mongodb::options::{ConnectionString, Tls, TlsOptions};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

/// A MongoDB connection string. Printing it shows neither user nor password.
#[derive(Clone)]
pub struct MongoUrl {
    whole: SecretString,
    shown: String,
    database: Option<String>,
    ca: Option<PathBuf>,
}

const ENCODE: &str = "user and password must be percent-encoded: `@` is %40, `:` is %3A, `/` is %2F, `?` is %3F, `#` is %23, \
                      `[` is %5B, `]` is %5D, `%` is %25";

impl MongoUrl {
    /// Reads `mongodb://[user:password@]host[:port][,host[:port]…]/[database][?options]`, or `mongodb+srv://…`.
    ///
    /// # Errors
    /// Says what is wrong and what would be right, without user and password.
    pub fn read(text: &str) -> Result<Self, String> {
        let form = "expected mongodb://[user:password@]host[:port]/[database][?options]";
        let (scheme, rest) = text.split_once("://").ok_or(form)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        // Whatever part of a password looks like the end of the address still has the last `@` behind it.
        let (login, address) = rest.rsplit_once('@').unwrap_or(("", rest));
        if login.len() > end || rest.contains('#') {
            return Err(ENCODE.into());
        }
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        if [user, password].iter().any(|part| part.contains([':', '@', '[', ']']) || !decodes(part)) {
            return Err(ENCODE.into());
        }
        // What the driver says of the rest can be told, because there is no secret in it.
        let shown = format!("{scheme}://{address}");
        let parsed = ConnectionString::parse(&shown).map_err(|error| format!("{}: {form}", error.kind))?;
        if let Some(Tls::Enabled(tls)) = &parsed.tls {
            for file in [&tls.ca_file_path, &tls.cert_key_file_path].into_iter().flatten() {
                std::fs::File::open(file)
                    .map_err(|error| format!("the file {} cannot be read: {error}", file.display()))?;
            }
        }
        ConnectionString::parse(text).map_err(|_| form.to_owned())?;
        Ok(Self { whole: text.into(), shown, database: parsed.default_database, ca: None })
    }

    /// The same by TLS, with a server that is vouched for by one of the certificates in a file.
    #[must_use]
    pub fn trusting(self, ca: PathBuf) -> Self {
        Self { ca: Some(ca), ..self }
    }

    /// How the connection is protected: as the text says, and by the CA that is named beside it.
    pub(super) fn tls(&self, said: Option<Tls>) -> Option<Tls> {
        let Some(ca) = self.ca.clone() else { return said };
        let mut options = match said {
            Some(Tls::Enabled(options)) => options,
            _ => TlsOptions::default(),
        };
        options.ca_file_path = Some(ca);
        Some(Tls::Enabled(options))
    }

    /// The database that it names.
    pub fn database(&self) -> Option<String> {
        self.database.clone()
    }

    /// The servers, as it names them.
    pub(super) fn hosts(&self) -> &str {
        let address = self.shown.split_once("://").map_or(&*self.shown, |(_, rest)| rest);
        address.split(['/', '?']).next().unwrap_or(address)
    }

    /// The user that it names, if that has this password, which needs no encoding.
    pub(crate) fn user_with(&self, password: &str) -> Option<String> {
        let (_, rest) = self.expose().split_once("://")?;
        let (user, its) = rest.rsplit_once('@')?.0.split_once(':')?;
        (its == password).then(|| user.into())
    }

    /// The whole, secrets included.
    pub(super) fn expose(&self) -> &str {
        self.whole.expose_secret()
    }
}

fn decodes(text: &str) -> bool {
    let mut escapes = text.split('%').skip(1);
    escapes.all(|rest| rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)))
        && percent_decode_str(text).decode_utf8().is_ok()
}

impl PartialEq for MongoUrl {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for MongoUrl {}

impl fmt::Display for MongoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for MongoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_password_is_hinted_at_and_never_printed() {
        for login in
            ["me:hun@ter2", "me:12#hunter2", "me:hun/ter2", "me:hunter2?", "me:hun:ter2", "me:%hunter2", "me:[hunter2"]
        {
            let error = MongoUrl::read(&format!("mongodb://{login}@host/orders?replicaSet=rs0")).unwrap_err();
            assert!(error.contains("`@` is %40") && !error.contains("ter2"), "{login}: {error}");
        }
    }

    #[test]
    fn a_url_is_shown_without_user_and_password() {
        let text = "mongodb://me:hunter%402@a:1,b:2/orders?replicaSet=rs0";
        let url = MongoUrl::read(text).unwrap();
        assert_eq!(url.to_string(), "mongodb://a:1,b:2/orders?replicaSet=rs0");
        assert_eq!(format!("{url:?}"), url.to_string());
        assert_eq!(url.expose(), text);
    }

    #[test]
    fn what_is_wrong_elsewhere_is_said_without_the_password() {
        for (rest, said) in [
            ("host:port/orders", "port"),
            ("host/or$ders", "illegal character in database name"),
            ("host/orders?tls=perhaps", "tls"),
            ("/orders", "hostname cannot be empty"),
            ("host/orders?tls=true&tlsCAFile=/no/such/file", "/no/such/file cannot be read"),
        ] {
            let error = MongoUrl::read(&format!("mongodb://me:hunter2@{rest}")).unwrap_err();
            assert!(error.contains(said) && !error.contains("hunter2"), "{rest}: {error}");
        }
    }
}
