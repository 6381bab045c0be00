use super::*;
use crate::time::WallTime;

struct Noise(u64);

impl Entropy for Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
            *byte = (self.0 >> 56) as u8;
        }
    }
}

fn moment(ms: u64) -> Moment {
    Moment {
        at: Instant::from_nanos(ms * 1_000_000),
        wall: WallTime::from_nanos(1_700_000_000_000_000_000 + ms * 1_000_000),
    }
}

#[test]
fn the_first_report_comes_within_a_second_and_the_others_within_half_of_five() {
    let noise = &mut Noise(1);
    for _ in 0..200 {
        let stream = OutgoingStream::new(noise, 8000);
        let mut control = ReportControl::new(noise);
        control.start(noise, moment(0).at);
        let mut last = Instant::ZERO;
        let mut gaps = Vec::new();
        for _ in 0..5 {
            let due = control.next_timeout().expect("started");
            gaps.push((due - last).as_millis());
            last = due;
            let now = moment(due.as_nanos() / 1_000_000 + 1);
            assert!(control.poll(noise, &stream, None, now).is_some());
            assert!(control.poll(noise, &stream, None, now).is_none());
        }
        assert!(gaps[0] < 1000, "{gaps:?}");
        assert!(
            gaps[1..].iter().all(|gap| (2500..=7502).contains(gap)),
            "{gaps:?}"
        );
    }
}

#[test]
fn the_round_trip_is_what_passed_less_what_the_peer_held() {
    let noise = &mut Noise(1);
    let mut ours = OutgoingStream::new(noise, 8000);
    ours.on_sent(160);
    let theirs = OutgoingStream::new(noise, 8000);
    let mut here = ReportControl::new(noise);
    let mut there = ReportControl::new(noise);
    let report = here.farewell(&ours, None, moment(1000));
    there.on_compound(report.bytes(), &theirs, moment(1040).at);
    let mut reception = Reception::new(ours.ssrc(), 1);
    reception.on_packet(1);
    let answer = there.farewell(&theirs, Some(&mut reception), moment(1540));
    here.on_compound(answer.bytes(), &ours, moment(1580).at);
    let round_trip = here.round_trip().expect("answered");
    assert!(round_trip.abs_diff(Duration::from_millis(80)) < Duration::from_micros(100));
    assert_eq!(here.peer_fraction_lost(), Some(0));
}

#[test]
fn reports_about_others_and_answers_to_nothing_say_nothing() {
    let noise = &mut Noise(1);
    let ours = OutgoingStream::new(noise, 8000);
    let mut here = ReportControl::new(noise);
    let mut reception = Reception::new(ours.ssrc() ^ 1, 1);
    let theirs = OutgoingStream::new(noise, 8000);
    let mut there = ReportControl::new(noise);
    let about_another = there.farewell(&theirs, Some(&mut reception), moment(0));
    here.on_compound(about_another.bytes(), &ours, moment(1).at);
    assert_eq!(here.peer_fraction_lost(), None);
    let mut reception = Reception::new(ours.ssrc(), 1);
    let unanswered = there.farewell(&theirs, Some(&mut reception), moment(0));
    here.on_compound(unanswered.bytes(), &ours, moment(1).at);
    assert_eq!(here.round_trip(), None);
}

#[test]
fn a_goodbye_is_reported_with_its_sources() {
    let noise = &mut Noise(1);
    let theirs = OutgoingStream::new(noise, 8000);
    let ours = OutgoingStream::new(noise, 8000);
    let farewell = ReportControl::new(noise).farewell(&theirs, None, moment(0));
    let read = ReportControl::new(noise).on_compound(farewell.bytes(), &ours, moment(0).at);
    assert_eq!(read.goodbye, Some((vec![theirs.ssrc()], None)));
    assert!(!read.is_malformed);
    let garbage = ReportControl::new(noise).on_compound(&[0x80, 200], &ours, moment(0).at);
    assert!(garbage.is_malformed);
}

#[test]
fn who_stops_sending_goes_back_to_receiver_reports_after_two() {
    let noise = &mut Noise(1);
    let mut stream = OutgoingStream::new(noise, 8000);
    let mut control = ReportControl::new(noise);
    let mut types = Vec::new();
    for n in 0..4 {
        if n == 1 {
            stream.on_sent(160);
        }
        types.push(control.report(&stream, None, moment(n * 1000)).bytes()[1]);
    }
    assert_eq!(types, [201, 200, 200, 201]);
}
