//! A headless Chromium, spoken to by WebDriver.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use millstream::testing::{eventually, skip};
use serde_json::{Value, json};

use crate::SOON;

/// A browser with one tab; ends with the test.
pub(crate) struct Browser {
    driver: Child,
    http: reqwest::Client,
    session: String,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver leads a group, in which the browser is.
        let group = format!("-{}", self.driver.id());
        drop(Command::new("kill").args(["-KILL", "--", &group]).status());
        drop(self.driver.wait());
    }
}

impl Browser {
    /// A browser, or a note that the test is left out for lack of one.
    pub(crate) async fn start(what: &str) -> Option<Self> {
        let mut driver = Command::new("chromedriver");
        driver.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let driver = driver.spawn();
        let Ok(mut driver) = driver else {
            skip(what, "there is no chromedriver (Debian's packages chromium and chromium-driver)");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines
            .find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse::<u16>().ok());
        // Whoever does not read would be stopped in time by a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let place = format!("http://127.0.0.1:{}/session", port.unwrap());
        let http = reqwest::Client::new();
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            "timeouts": { "script": 30_000 },
        } } });
        let answer: Value = http.post(&place).json(&wanted).send().await.unwrap().json().await.unwrap();
        let Some(id) = answer["value"]["sessionId"].as_str() else { panic!("no browser: {answer}") };
        let browser = Self { driver, http, session: format!("{place}/{id}") };
        browser.resize(1280, 900).await;
        Some(browser)
    }

    async fn call(&self, path: &str, body: Value) -> Value {
        let answer = self.http.post(format!("{}{path}", self.session)).json(&body).send().await.unwrap();
        let fine = answer.status().is_success();
        let answer: Value = answer.json().await.unwrap();
        assert!(fine, "{path}: {answer}");
        answer["value"].clone()
    }

    /// Sets the size of the page.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("/goog/cdp/execute", json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics })).await;
    }

    /// Opens an address, from nothing.
    pub(crate) async fn open(&self, url: &str) {
        self.call("/url", json!({ "url": "about:blank" })).await;
        self.call("/url", json!({ "url": url })).await;
    }

    /// Opens an address in a new tab that nobody looks at.
    pub(crate) async fn open_in_background(&self, url: &str) {
        let target = json!({ "url": url, "background": true });
        self.call("/goog/cdp/execute", json!({ "cmd": "Target.createTarget", "params": target })).await;
    }

    /// The value of an expression in the page.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        self.call("/execute/sync", json!({ "script": format!("return {expression}"), "args": [] })).await
    }

    /// The value that a promise in the page comes to.
    pub(crate) async fn awaited(&self, expression: &str) -> Value {
        let script = format!("const done = arguments[0]; ({expression}).then(done, (error) => done(String(error)))");
        self.call("/execute/async", json!({ "script": script, "args": [] })).await
    }

    /// Waits until the page shows a text.
    pub(crate) async fn until_shows(&self, text: &str) {
        let shown =
            async || self.value("document.body.innerText").await.as_str().is_some_and(|page| page.contains(text));
        eventually(&format!("the page to show `{text}`"), SOON, shown).await;
    }

    /// Clicks the button or link with this text, once it can be.
    pub(crate) async fn click(&self, text: &str) {
        let wanted = serde_json::to_string(text).unwrap();
        let click = format!(
            "(() => {{ const within = [...document.querySelectorAll('dialog[open]')].at(-1) || document; \
             const found = [...within.querySelectorAll('a, button, summary, label.check')].find((one) => one.innerText.trim() === {wanted} && !one.disabled); \
             found?.click(); return !!found; }})()"
        );
        eventually(&format!("a button `{text}`"), SOON, async || self.value(&click).await == true).await;
    }

    /// Types into the field that has this name, of a dialog if one is open.
    pub(crate) async fn fill(&self, name: &str, text: &str) {
        let text = serde_json::to_string(text).unwrap();
        let fill = format!(
            "(() => {{ const field = [...document.querySelectorAll('[name={name}]')].at(-1); field.value = {text}; \
             field.dispatchEvent(new Event('input', {{ bubbles: true }})); }})()"
        );
        self.value(&fill).await;
    }

    /// Presses keys.
    pub(crate) async fn keys(&self, keys: &str) {
        let press = |key: char| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })];
        let actions: Vec<Value> = keys.chars().flat_map(press).collect();
        self.call("/actions", json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] })).await;
    }

    /// Goes on by the tab key until what has this text has the focus.
    pub(crate) async fn tab_to(&self, text: &str) {
        eventually(&format!("`{text}` to get the focus"), SOON, async || {
            self.keys("\u{e004}").await;
            self.value("document.activeElement.innerText").await == text
        })
        .await;
    }

    async fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.call("/se/log", json!({ "type": kind })).await;
        log.as_array().unwrap().clone()
    }

    /// What stands in the browser's console since it was last asked for.
    pub(crate) async fn errors(&self) -> Vec<String> {
        self.log("browser").await.iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// Where requests went since this was last asked for.
    pub(crate) async fn requests(&self) -> Vec<String> {
        let url = |entry: &Value| {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &message["message"];
            let sent = message["method"] == "Network.requestWillBeSent";
            sent.then(|| message["params"]["request"]["url"].as_str().map(str::to_owned))?
        };
        self.log("performance").await.iter().filter_map(url).collect()
    }
}
