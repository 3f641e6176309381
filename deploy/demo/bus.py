# SPDX-License-Identifier: MPL-2.0
"""A plain AMQP client, as another team would write it: publishes to its own exchange, listens to ours."""

import json
import threading
import time

import pika


class Bus:
    """Collects every message of some exchanges from the moment it is made, with the time each arrived."""

    def __init__(self, url, bindings):
        self.url = url
        self.messages = []
        self._changed = threading.Condition()
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = self._connection.channel()
        queue = channel.queue_declare("", exclusive=True, auto_delete=True).method.queue
        for exchange, pattern in bindings:
            channel.exchange_declare(exchange, "topic", durable=True)
            channel.queue_bind(queue, exchange, pattern)
        channel.basic_consume(queue, self._receive, auto_ack=True)
        self._thread = threading.Thread(target=self._consume, args=(channel,), daemon=True)
        self._thread.start()

    def _consume(self, channel):
        try:
            channel.start_consuming()
        except pika.exceptions.AMQPError:
            pass

    def _receive(self, channel, method, properties, body):
        with self._changed:
            self.messages.append((time.time(), method.exchange.rpartition("/")[2], json.loads(body)))
            self._changed.notify_all()

    def wait_any(self, names, matches, seconds=90):
        """The first message of any of these exchanges that satisfies `matches`, with its exchange."""
        limit = time.monotonic() + seconds
        with self._changed:
            while True:
                for _, exchange, payload in self.messages:
                    if exchange in names and matches(payload):
                        return exchange, payload
                left = limit - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"no message of {', '.join(names)} arrived within {seconds} s")
                self._changed.wait(left)

    def wait(self, name, matches, seconds=90):
        """The first message of exchange `name` that satisfies `matches`, with its arrival time."""
        limit = time.monotonic() + seconds
        with self._changed:
            while True:
                for arrived, exchange, payload in self.messages:
                    if exchange == name and matches(payload):
                        return arrived, payload
                left = limit - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"no {name} message arrived within {seconds} s")
                self._changed.wait(left)

    def close(self):
        self._connection.add_callback_threadsafe(self._connection.close)
        self._thread.join(5)


class Publisher:
    """Publishes persistent messages on one connection; each call returns after the broker's confirm.

    A message the broker did not confirm is sent again for up to `patience` seconds, so it may arrive twice.
    """

    def __init__(self, url, patience=60):
        self.url, self.patience = url, patience
        self._connection = self._channel = None

    def publish(self, exchange, routing_key, payload, message_id=None):
        properties = pika.BasicProperties(content_type="application/json", delivery_mode=2, message_id=message_id)
        limit = time.monotonic() + self.patience
        while True:
            try:
                self._open(exchange).basic_publish(exchange, routing_key, json.dumps(payload).encode(), properties)
                return
            except (pika.exceptions.AMQPError, OSError):
                self.close()
                if time.monotonic() > limit:
                    raise
                time.sleep(0.2)

    def _open(self, exchange):
        if self._channel is None:
            self._connection = pika.BlockingConnection(pika.URLParameters(self.url))
            self._channel = self._connection.channel()
            self._channel.confirm_delivery()
            self._channel.exchange_declare(exchange, "topic", durable=True)
        return self._channel

    def close(self):
        connection, self._connection, self._channel = self._connection, None, None
        try:
            if connection is not None:
                connection.close()
        except (pika.exceptions.AMQPError, OSError):
            # It is gone already.
            pass


def publish(url, exchange, routing_key, payload, message_id=None):
    """Declares the exchange and publishes one persistent message, returning after the broker's confirm."""
    publisher = Publisher(url, patience=0)
    try:
        publisher.publish(exchange, routing_key, payload, message_id)
    finally:
        publisher.close()
