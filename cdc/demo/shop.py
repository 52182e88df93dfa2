"""Generate orders, payments and cancellations of a shop, as payloads for the contracts in schemas/shop.

The same seed generates the same events.
"""

import datetime
import json
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

AGGREGATES: Final = ("order", "payment")

_CUSTOMERS: Final = (
    "Ada Lovelace", "Søren Kierkegaard", "Grace Hopper", "Zoë Washburne", "Jürgen Habermas", "Marie Curie",
    "Nguyễn Du", "Chinua Achebe", "Frida Kahlo", "Halldór Laxness", "Emmy Noether", "José Saramago",
)  # fmt: skip
_GOODS: Final = {
    "TEA-EARLGREY-250": "8.90",
    "MUG-STONEWARE": "14.50",
    "KETTLE-1.7L": "49.00",
    "BOOK-978014044": "11.99",
    "LAMP-DESK-LED": "74.25",
    "PEN-FOUNTAIN": "32.10",
    "NOTEBOOK-A5": "6.05",
    "CHAIR-OAK": "189.00",
}
_CURRENCIES: Final = ("EUR", "EUR", "EUR", "SEK", "GBP")
_NOTES: Final = (None, None, None, "Leave it with the neighbours, please", "Gift wrap: „Alles Gute!“", "Ring twice")
_METHODS: Final = ("CARD", "TRANSFER", "WALLET")
_REASONS: Final = {
    "CUSTOMER": "changed my mind",
    "PAYMENT_FAILED": None,
    "OUT_OF_STOCK": "expected again in three weeks",
    "OTHER": None,
}


@dataclass(frozen=True, slots=True)
class ShopEvent:
    """One row of the outbox; `key` is the order's id."""

    id: str
    aggregate: str
    key: str
    type: str
    payload: str


@dataclass(slots=True)
class Order:
    """An order, with the number of unpaid instalments."""

    id: str
    customer: str
    total: Decimal
    currency: str
    unpaid: int
    paid: Decimal = field(default=Decimal(0))


class Till:
    """Generates orders and their events; each writer has its own."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def order(self, parts: int | None = None) -> tuple[Order, ShopEvent]:
        """Return a new order, payable in `parts` instalments, and its OrderPlaced event."""
        pick = self.random
        name = pick.choice(_CUSTOMERS)
        basket = {sku: pick.randint(1, 4) for sku in pick.sample(sorted(_GOODS), pick.randint(1, 3))}
        total = sum((Decimal(_GOODS[sku]) * quantity for sku, quantity in basket.items()), Decimal(0))
        order = Order(self._uuid(), name, total, pick.choice(_CURRENCIES), parts or pick.randint(1, 3))
        customer: dict[str, object] = {"id": 1000 + _CUSTOMERS.index(name), "name": name}
        if pick.random() < 0.6:
            customer["email"] = f"customer{customer['id']}@shop.example"
        payload = {
            "order_id": order.id,
            "customer": customer,
            "lines": [{"sku": sku, "qty": quantity, "unit_price": _GOODS[sku]} for sku, quantity in basket.items()],
            "total": str(total),
            "currency": order.currency,
            "note": pick.choice(_NOTES),
            "placed_at": _now(),
        }
        return order, self._event("order", order, "OrderPlaced", payload)

    def capture(self, order: Order) -> ShopEvent:
        """Return the PaymentCaptured event of the next instalment; the last one is the remaining amount."""
        part = (order.total - order.paid) / order.unpaid
        amount = part.quantize(Decimal("0.01"))
        order.unpaid -= 1
        order.paid += amount
        payload = {
            "payment_id": self._uuid(),
            "order_id": order.id,
            "amount": str(amount),
            "currency": order.currency,
            "method": self.random.choice(_METHODS),
            "captured_at": _now(),
        }
        return self._event("payment", order, "PaymentCaptured", payload)

    def cancel(self, order: Order) -> ShopEvent:
        """Return the OrderCancelled event of an order."""
        reason = self.random.choice(sorted(_REASONS))
        payload = {"order_id": order.id, "reason": reason, "comment": _REASONS[reason], "cancelled_at": _now()}
        return self._event("order", order, "OrderCancelled", payload)

    def _event(self, aggregate: str, order: Order, event_type: str, payload: Mapping[str, object]) -> ShopEvent:
        return ShopEvent(self._uuid(), aggregate, order.id, event_type, json.dumps(payload, ensure_ascii=False))

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
