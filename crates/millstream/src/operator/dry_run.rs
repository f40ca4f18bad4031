//! Dry runs: what would become of dead letters, asked of the services that have to handle them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::operator::Operator;
use crate::operator::dead::DeadLetter;
use crate::operator::redrive::{number, redrive_of};
use crate::protocol::{Asked, DryRun, DryRunQuestion, MOST_REDRIVES, RedriveMessage, subject};

/// Questions without an answer, after which a service is not asked any more.
const UNANSWERED: usize = 2;
/// What a question has around its redrives, and each redrive around what it carries, at the most.
const AROUND: usize = 512;

impl Operator {
    /// What would become of these if they were redriven now, in this order. A service is asked for up to 100 at once, and those of
    /// one question meet what the ones before them would have changed.
    pub(crate) async fn dry_run(&self, letters: &[&DeadLetter], mut progress: impl FnMut(usize)) -> Vec<DryRun> {
        let mut services: Vec<&str> = letters.iter().map(|letter| letter.service.as_str()).collect();
        services.sort_unstable();
        services.dedup();
        let mut found: Vec<Option<DryRun>> = vec![None; letters.len()];
        for service in services {
            let of: Vec<usize> = (0..letters.len()).filter(|at| letters[*at].service == service).collect();
            let mut unanswered = vec![];
            for question in self.questions(letters, &of) {
                let answers = match &unanswered[..] {
                    whys if whys.len() >= UNANSWERED => Err(String::clone(&whys[0])),
                    _ if size(letters[question[0]]) > self.most() => Err("it is too large for a dry run".into()),
                    _ => self
                        .dry_run_of(service, letters, &question)
                        .await
                        .inspect_err(|why| unanswered.push(why.clone())),
                };
                match answers {
                    Ok(answers) => question.iter().zip(answers).for_each(|(at, answer)| found[*at] = Some(answer)),
                    Err(why) => question.iter().for_each(|at| found[*at] = Some(DryRun::unknown(&*why))),
                }
                progress(found.iter().flatten().count());
            }
        }
        let unknown = || DryRun::unknown("the service has not answered for it");
        found.into_iter().map(|found| found.unwrap_or_else(unknown)).collect()
    }

    async fn dry_run_of(
        &self,
        service: &str,
        letters: &[&DeadLetter],
        question: &[usize],
    ) -> Result<Vec<DryRun>, String> {
        let redrives = question.iter().map(|at| redrive(letters[*at])).collect();
        let asked = subject(Asked::DryRun.name(), service);
        self.ask(service, asked, &DryRunQuestion { redrives }).await.map_err(|error| error.to_string())
    }

    /// The most that the redrives of a question may take.
    fn most(&self) -> usize {
        self.client.max_payload().saturating_sub(AROUND)
    }

    /// Divides what a service is to be asked into questions that the broker takes.
    fn questions(&self, letters: &[&DeadLetter], of: &[usize]) -> Vec<Vec<usize>> {
        let mut questions: Vec<Vec<usize>> = vec![];
        let mut room = 0;
        for at in of {
            let size = size(letters[*at]);
            match questions.last_mut().filter(|question| question.len() < MOST_REDRIVES && size <= room) {
                Some(question) => question.push(*at),
                None => {
                    questions.push(vec![*at]);
                    room = self.most();
                }
            }
            room = room.saturating_sub(size);
        }
        questions
    }
}

/// The redrive as it would be sent, but for the sequence of the record: that is the claim's, which is not made.
fn redrive(letter: &DeadLetter) -> RedriveMessage {
    let (subject, headers, payload) = redrive_of(letter, number(letter), letter.record_sequence);
    let pairs = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    let headers = pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect();
    RedriveMessage { subject, headers, payload: STANDARD.encode(payload) }
}

/// What a redrive takes of a question: base64 is four thirds, and a quote in a header is written as two characters.
fn size(letter: &DeadLetter) -> usize {
    let headers = letter.wire.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    let headers: usize =
        headers.map(|(name, value)| AsRef::<str>::as_ref(name).len() + 2 * value.as_str().len() + 8).sum();
    AROUND + headers + letter.payload.len().div_ceil(3) * 4
}
