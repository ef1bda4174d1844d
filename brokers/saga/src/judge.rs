//! The judgement: orders, stock, money and claims have to agree.

use std::collections::{HashMap, HashSet};
use std::fmt;

use anyhow::{Context as _, Result, ensure};
use onceonly::Claim;

use crate::Attempt;
use crate::database::{Place, Row};
use crate::machine::State;
use crate::provider::Provider;
use crate::shop::{ITEMS, Shop};
use crate::worker::open_store;

/// The account of a campaign.
#[derive(Debug)]
#[must_use = "it may say that something is wrong"]
pub struct Report {
    pub kills: u64,
    pub orders: u64,
    pub paid: u64,
    pub cancelled: u64,
    /// Orders that were taken again after a cancellation.
    pub taken_again: u64,
    /// Cancellations that were accepted.
    pub cancellations: u64,
    /// What does not add up; empty when all is well.
    pub faults: Vec<String>,
}

pub(crate) fn judge(place: &Place, kills: u64, stock: i64) -> Result<Report> {
    let (mut shop, provider) = (Shop::open(place)?, Provider::open(&place.dir)?);
    let orders = read_orders(&mut shop)?;
    let count = |state| orders.iter().filter(|(_, at)| *at == state).count() as u64;
    let cancellations = read_attempts(&mut shop, "SELECT order_id, attempt FROM cancellation")?;
    let mut report = Report {
        kills,
        orders: orders.len() as u64,
        paid: count(State::Paid),
        cancelled: count(State::Cancelled),
        taken_again: orders.iter().filter(|(attempt, _)| attempt.number > 1).count() as u64,
        cancellations: cancellations.len() as u64,
        faults: Vec::new(),
    };
    judge_money(&mut report, &orders, &provider.movements()?, &cancellations);
    judge_stock(&mut report, &orders, &mut shop, stock)?;
    judge_history(&mut report, &mut shop)?;
    judge_claims(&mut report, &orders, place)?;
    Ok(report)
}

fn read_attempts(shop: &mut Shop, query: &str) -> Result<Vec<Attempt>> {
    let attempt = |row: &Row| Ok(Attempt { order: row.number(0)?, number: row.number(1)? });
    shop.query(query)?.iter().map(attempt).collect()
}

fn read_orders(shop: &mut Shop) -> Result<Vec<(Attempt, State)>> {
    let attempts = read_attempts(shop, "SELECT id, attempt FROM orders")?;
    let look = |attempt: Attempt| {
        let (_, state) = shop.look(attempt.order)?.expect("it was just listed");
        Ok((attempt, state))
    };
    attempts.into_iter().map(look).collect()
}

/// Paid orders have moved money once, in the attempt that was paid; others never. Nothing that was
/// cancelled is paid.
fn judge_money(
    report: &mut Report,
    orders: &[(Attempt, State)],
    movements: &[Attempt],
    cancellations: &[Attempt],
) {
    let mut moved: HashMap<i64, Vec<i64>> = HashMap::new();
    for movement in movements {
        moved.entry(movement.order).or_default().push(movement.number);
    }
    let cancellations: HashSet<&Attempt> = cancellations.iter().collect();
    for (attempt, state) in orders {
        let moved = moved.remove(&attempt.order).unwrap_or_default();
        let right = match state {
            State::Paid => moved == [attempt.number] && !cancellations.contains(attempt),
            State::Cancelled => moved.is_empty(),
            _ => false,
        };
        if !right {
            report.faults.push(format!("{attempt:?} is {state:?}, money moved in {moved:?}"));
        }
    }
    if !moved.is_empty() {
        report.faults.push(format!("money moved for orders that there are not: {moved:?}"));
    }
}

/// No piece is lost, and the orders that hold one are the paid ones.
fn judge_stock(
    report: &mut Report,
    orders: &[(Attempt, State)],
    shop: &mut Shop,
    stock: i64,
) -> Result<()> {
    let mut number = |query: &str| shop.query(query)?.first().context("one row")?.number(0);
    let free = number("SELECT CAST(sum(free) AS BIGINT) FROM stock")?;
    let least = number("SELECT min(free) FROM stock")?;
    let reserved = number("SELECT count(*) FROM reservation")?;
    if free + reserved != stock * ITEMS || least < 0 {
        report.faults.push(format!("of {stock} each, {free} are free and {reserved} reserved"));
    }
    let query = "SELECT order_id, item FROM reservation";
    let holders: HashSet<i64> =
        read_attempts(shop, query)?.into_iter().map(|attempt| attempt.order).collect();
    for (attempt, state) in orders {
        if holders.contains(&attempt.order) != (*state == State::Paid) {
            report.faults.push(format!("{attempt:?} is {state:?}, its piece does not agree"));
        }
    }
    Ok(())
}

/// Each transition happened once an attempt, under tokens that grow.
fn judge_history(report: &mut Report, shop: &mut Shop) -> Result<()> {
    let query = "SELECT order_id, attempt FROM history
                 GROUP BY order_id, attempt, state HAVING count(*) > 1";
    for attempt in read_attempts(shop, query)? {
        report.faults.push(format!("{attempt:?} made a transition twice"));
    }
    let query = "SELECT late.order_id, late.attempt FROM history early JOIN history late
                 ON early.order_id = late.order_id AND early.number < late.number
                 AND early.token > late.token";
    for attempt in read_attempts(shop, query)? {
        report.faults.push(format!("{attempt:?} was moved by a late owner"));
    }
    Ok(())
}

/// What is paid may not be taken again, what is cancelled may; nothing is in flight.
fn judge_claims(report: &mut Report, orders: &[(Attempt, State)], place: &Place) -> Result<()> {
    let dedup = open_store(&place.dir)?;
    let in_flight = dedup.claims()?.len();
    if in_flight > 0 {
        report.faults.push(format!("{in_flight} claims are in flight"));
    }
    let scope = dedup.scope("orders");
    for (attempt, state) in orders {
        let claim = scope.claim(attempt.order.to_le_bytes())?;
        let right = match claim {
            Claim::Duplicate { .. } => *state == State::Paid,
            Claim::Granted(_) => *state == State::Cancelled,
            _ => false,
        };
        if !right {
            report.faults.push(format!("{attempt:?} is {state:?}, its claim does not agree"));
        }
    }
    Ok(dedup.close()?)
}

impl Report {
    pub fn check(&self) -> Result<()> {
        ensure!(self.orders > 0, "no order was taken");
        let some: Vec<&String> = self.faults.iter().take(10).collect();
        ensure!(some.is_empty(), "{} faults: {some:#?}", self.faults.len());
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "kills {} orders {} paid {} cancelled {} taken_again {} cancellations {} faults {}",
            self.kills,
            self.orders,
            self.paid,
            self.cancelled,
            self.taken_again,
            self.cancellations,
            self.faults.len(),
        )
    }
}
