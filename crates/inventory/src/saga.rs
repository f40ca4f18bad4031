//! Reserve, release, sell: the inventory's table of the order saga.

use std::collections::BTreeMap;

use contracts::inventory::{InventoryRejected, InventoryReleased, InventoryReserved, ShortLine};
use contracts::orders::{OrderCancelled, OrderConfirmed, OrderCreated};
use contracts::{Line, OrderId, ProductId};
use millstream::{Fault, Handler, Keys, Received, Unit};

use crate::documents::{Product, Reservation, Status};
use crate::metrics::{INVARIANT_VIOLATIONS, RESERVATIONS, SHORT_LINES};

fn touches(order: &OrderId, lines: &[Line]) -> Keys {
    let products: BTreeMap<_, _> = by_product(lines);
    Keys::one::<Reservation>(order).and_all::<Product>(products.into_keys())
}

/// The quantity per product: the orders service sends one line per product, but this code does not rely on it.
fn by_product(lines: &[Line]) -> BTreeMap<&ProductId, u64> {
    let mut wanted = BTreeMap::new();
    for line in lines {
        *wanted.entry(&line.product_id).or_default() += u64::from(line.quantity);
    }
    wanted
}

/// An order was placed: reserves all its lines, or none.
pub(crate) struct Reserve;

impl Handler<OrderCreated> for Reserve {
    fn touches(&self, order: &Received<OrderCreated>) -> Keys {
        touches(&order.order_id, &order.lines)
    }

    fn handle(&self, order: &Received<OrderCreated>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let id = &order.order_id;
        if unit.get::<Reservation>(id)?.is_some() {
            return Ok(());
        }
        let mut products = vec![];
        let mut short = vec![];
        for (product_id, requested) in by_product(&order.lines) {
            // An unknown product has no stock.
            let product = unit.get::<Product>(product_id)?;
            let available = product.as_ref().map_or(0, Product::available);
            match product.filter(|_| available >= requested) {
                Some(mut product) => {
                    product.reserved += requested;
                    products.push(product);
                }
                None => short.push(ShortLine { product_id: product_id.clone(), requested, available }),
            }
        }
        let status = if short.is_empty() { Status::Reserved } else { Status::Rejected };
        unit.put(Reservation { id: id.clone(), status, lines: order.lines.clone() });
        if short.is_empty() {
            products.into_iter().for_each(|product| unit.put(product));
            unit.count(&RESERVATIONS, &["reserved"]);
            unit.emit(&InventoryReserved {
                order_id: id.clone(),
                amount: order.total,
                currency: order.currency,
                customer: order.user_id.clone(),
            });
        } else {
            unit.count(&RESERVATIONS, &["rejected"]);
            unit.count_by(&SHORT_LINES, &[], short.len() as f64);
            unit.emit(&InventoryRejected { order_id: id.clone(), short });
        }
        Ok(())
    }
}

/// An order was cancelled: releases its stock, or prevents a later reservation.
pub(crate) struct Release;

impl Handler<OrderCancelled> for Release {
    fn touches(&self, order: &Received<OrderCancelled>) -> Keys {
        touches(&order.order_id, &order.lines)
    }

    fn handle(&self, order: &Received<OrderCancelled>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let id = &order.order_id;
        match unit.get::<Reservation>(id)? {
            None => {
                unit.put(Reservation { id: id.clone(), status: Status::Released, lines: order.lines.clone() });
            }
            Some(reservation) if reservation.status == Status::Reserved => {
                for (product, quantity) in by_product(&reservation.lines) {
                    change(unit, product, |product| product.take_back(quantity))?;
                }
                unit.count(&RESERVATIONS, &["released"]);
                unit.emit(&InventoryReleased { order_id: id.clone(), lines: reservation.lines.clone() });
                unit.put(Reservation { status: Status::Released, ..reservation });
            }
            Some(reservation) if reservation.status == Status::Sold => {
                violation(&reservation, &["cancelled_after_sold"], unit);
            }
            Some(_) => {}
        }
        Ok(())
    }
}

/// An order was confirmed: marks its stock sold.
pub(crate) struct Sell;

impl Handler<OrderConfirmed> for Sell {
    fn touches(&self, order: &Received<OrderConfirmed>) -> Keys {
        touches(&order.order_id, &order.lines)
    }

    fn handle(&self, order: &Received<OrderConfirmed>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let id = &order.order_id;
        let Some(reservation) = unit.get::<Reservation>(id)? else {
            return Err(Fault::Retry(format!("order {id} is confirmed but has no reservation")));
        };
        match reservation.status {
            Status::Reserved => {
                for (product, quantity) in by_product(&reservation.lines) {
                    change(unit, product, |product| {
                        product.take_back(quantity);
                        product.sold += quantity;
                    })?;
                }
                unit.count(&RESERVATIONS, &["sold"]);
                unit.put(Reservation { status: Status::Sold, ..reservation });
            }
            Status::Released | Status::Rejected => {
                violation(&reservation, &["confirmed_without_reservation"], unit);
            }
            Status::Sold => {}
        }
        Ok(())
    }
}

/// Changes a product with reserved stock. If it does not exist, or the event's lines differ from the reservation's, the data is
/// corrupt: this panics, which parks the message and changes nothing.
fn change(unit: &mut Unit<'_>, id: &ProductId, change: impl FnOnce(&mut Product)) -> Result<(), Fault> {
    let product = unit.get::<Product>(id)?;
    let mut product = product.unwrap_or_else(|| panic!("product {id} is reserved but does not exist"));
    change(&mut product);
    unit.put(product);
    Ok(())
}

fn violation(reservation: &Reservation, invariant: &'static [&'static str], unit: &mut Unit<'_>) {
    unit.count(&INVARIANT_VIOLATIONS, invariant);
    tracing::error!(
        order_id = %reservation.id,
        correlation_id = unit.correlation(),
        invariant = invariant[0],
        status = ?reservation.status,
        "event ignored: it contradicts the reservation's state"
    );
}
