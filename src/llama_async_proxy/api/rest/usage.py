"""Statistics: one conversation, and all inference by model and by day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query
from pydantic import Field

from llama_async_proxy.api.rest.chat_routing import ChatModel, ChatRoute, Id, RoleName, rounded
from llama_async_proxy.api.rest.conversations import ConversationTotals, conversation_totals
from llama_async_proxy.api.rest.routing import RestRoute, RouteTable, ServiceContext
from llama_async_proxy.operations import chats as chat_operations
from llama_async_proxy.operations import usage as usage_operations
from llama_async_proxy.operations.chats import (
    ConversationView,
    GetConversation,
)
from llama_async_proxy.operations.usage import GetUsage, Usage
from llama_async_proxy.store.requests import DayTotals

# --- schema -----------------------------------------------------------------------------------------------------------


class RoleStats(ChatModel):
    role: RoleName
    count: int
    avg_length: float = Field(description="Characters.")
    total_tokens: int
    avg_response_time: float | None


class ConversationStats(ChatModel):
    summary: ConversationTotals
    by_role: list[RoleStats]


class UsageTotals(ChatModel):
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    avg_response_time: float | None = Field(description="Milliseconds.")
    tokens_per_second: float | None = Field(description="While generating.")


class ModelUsage(UsageTotals):
    model: str


class DayUsage(UsageTotals):
    day: str = Field(description="ISO date, UTC.")


class DayModelUsage(ModelUsage, DayUsage):
    pass


class UsageAnswer(ChatModel):
    days: int
    total: UsageTotals
    by_model: list[ModelUsage]
    by_day: list[DayUsage]
    by_day_and_model: list[DayModelUsage]


# --- mapping ----------------------------------------------------------------------------------------------------------


def conversation_stats(view: ConversationView) -> ConversationStats:
    return ConversationStats(
        summary=conversation_totals(view.totals),
        by_role=[
            RoleStats(
                role=total.role.value,
                count=total.count,
                avg_length=round(total.average_length, 1),
                total_tokens=total.tokens,
                avg_response_time=rounded(total.average_response_ms),
            )
            for total in view.totals
        ],
    )


def usage_answer(usage: Usage) -> UsageAnswer:
    models = dict.fromkeys(total.model for total in usage.totals)
    days = dict.fromkeys(total.day for total in usage.totals)
    by_model = [ModelUsage(model=m, **_sums([t for t in usage.totals if t.model == m])) for m in models]
    return UsageAnswer(
        days=usage.days,
        total=UsageTotals(**_sums(usage.totals)),
        by_model=sorted(by_model, key=lambda sums: -sums.requests),
        by_day=[DayUsage(day=day, **_sums([t for t in usage.totals if t.day == day])) for day in days],
        by_day_and_model=[DayModelUsage(day=t.day, model=t.model, **_sums([t])) for t in usage.totals],
    )


def _sums(totals: Sequence[DayTotals]) -> dict[str, Any]:
    requests = sum(total.requests for total in totals)
    generation_ms = sum(total.generation_ms for total in totals)
    timed_tokens = sum(total.timed_tokens for total in totals)
    return {
        "requests": requests,
        "errors": sum(total.errors for total in totals),
        "prompt_tokens": sum(total.prompt_tokens for total in totals),
        "completion_tokens": sum(total.completion_tokens for total in totals),
        "cached_tokens": sum(total.cached_tokens for total in totals),
        "avg_response_time": round(sum(total.total_ms for total in totals) / requests, 1) if requests else None,
        "tokens_per_second": round(1000 * timed_tokens / generation_ms, 1) if generation_ms else None,
    }


# --- routes -----------------------------------------------------------------------------------------------------------


async def get_conversation_stats(context: ServiceContext, conversation_id: Id) -> ConversationStats:
    """Messages, lengths, tokens and response times of one conversation."""
    return conversation_stats(await chat_operations.get_conversation(context, GetConversation(conversation_id)))


async def get_usage(
    context: ServiceContext, days: Annotated[int, Query(description="Up to today, in UTC; 1 to 366.")] = 30
) -> UsageAnswer:
    """Requests, tokens and speed by model and by day, of all inference and not only of chats."""
    return usage_answer(await usage_operations.get_usage(context, GetUsage(days)))


TABLES = (
    RouteTable(
        "chats",
        (
            RestRoute("GET", "/api/stats", get_usage, UsageAnswer, (400, 503)),
            RestRoute(
                "GET", "/api/stats/{conversation_id}", get_conversation_stats, ConversationStats, (400, 404, 503)
            ),
        ),
        ChatRoute,
        shows_null=True,
    ),
)
