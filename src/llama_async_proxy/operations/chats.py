"""Conversations: kept here, answered here, whoever is watching."""

from __future__ import annotations

from math import isfinite

from msgspec import Struct, field
from msgspec.structs import fields

from llama_async_proxy.chats import titles
from llama_async_proxy.chats.answer import RunningAnswer
from llama_async_proxy.chats.images import check_image
from llama_async_proxy.errors import Conflict, InvalidInput
from llama_async_proxy.events import BranchChosen, ConversationChanged, ConversationDeleted
from llama_async_proxy.inference.requests.names import choose
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.records.chats import (
    Conversation,
    Edit,
    Image,
    Message,
    NewConversation,
    Regenerate,
    Sampling,
    Send,
    TurnRequest,
)
from llama_async_proxy.records.models import Model, ModelKind
from llama_async_proxy.store.chats import ConversationChanges, RoleTotals

MAX_MESSAGE_LENGTH = 2_000_000
"""Characters: more than any model reads."""
MAX_IMAGES = 16
_MAX_NAME_LENGTH = 500
_MAX_STOPS = 16
_LIMITS: dict[str, tuple[float, float]] = {
    "temperature": (0, 100),
    "top_p": (0, 1),
    "top_k": (0, 1 << 31),
    "min_p": (0, 1),
    "num_predict": (-1, 1 << 31),
    "repeat_penalty": (0, 100),
    "presence_penalty": (-100, 100),
    "frequency_penalty": (-100, 100),
    "seed": (-1, (1 << 32) - 1),
    "context_history_limit": (0, 100_000),
}


class ListConversations(Struct, frozen=True):
    """Last updated first. `archived`: True only those, None all."""

    limit: int | None = None
    offset: int = 0
    archived: bool | None = False


class ConversationList(Struct, frozen=True):
    conversations: tuple[Conversation, ...]
    answering: tuple[int, ...]
    """Ids of those in which an answer is being generated."""


class GetConversation(Struct, frozen=True):
    id: int
    every_branch: bool = False


class ConversationView(Struct, frozen=True):
    conversation: Conversation
    messages: tuple[Message, ...]
    """Oldest first: the active branch, or all that were asked for."""
    totals: tuple[RoleTotals, ...]
    is_answering: bool


class CreateConversation(Struct, frozen=True):
    """Without a title it is named after what is said first."""

    model: str
    title: str | None = None
    system_prompt: str | None = None
    sampling: Sampling = field(default_factory=Sampling)


class ConversationChange(Struct, frozen=True):
    conversation: Conversation


class UpdateConversation(Struct, frozen=True):
    """Fields left at None keep their value; `sampling` replaces all of it."""

    id: int
    title: str | None = None
    model: str | None = None
    system_prompt: str | None = None
    uses_default_system_prompt: bool = False
    sampling: Sampling | None = None
    is_pinned: bool | None = None
    is_archived: bool | None = None


class DeleteConversation(Struct, frozen=True):
    id: int


class DeletedConversation(Struct, frozen=True):
    id: int


class SendMessage(Struct, frozen=True):
    id: int
    message: str
    model: str
    images: tuple[Image, ...] = ()
    client: str = ""


class EditMessage(Struct, frozen=True):
    """Send something else in place of an earlier message; the earlier branch stays. No model: the conversation's."""

    id: int
    message_id: int
    message: str
    model: str | None = None
    client: str = ""


class RegenerateAnswer(Struct, frozen=True):
    """Answer again. `message_id` is an answer or a message of the user. No model: the conversation's."""

    id: int
    message_id: int
    model: str | None = None
    client: str = ""


class AnswerBegun(Struct, frozen=True):
    said: Message
    answer: Message
    """Still empty; it grows by itself."""


class StopAnswer(Struct, frozen=True):
    id: int


class StoppedAnswer(Struct, frozen=True):
    """`message` is what there is of the answer; None when none was being generated."""

    message: Message | None


class ChooseBranch(Struct, frozen=True):
    """Make the branch through a message the one that is read and continued."""

    id: int
    message_id: int


class GetImage(Struct, frozen=True):
    id: int


# --- conversations --------------------------------------------------------------------------------


@operation("chats.list", Effect.CHAT)
async def list_conversations(context: Context, request: ListConversations) -> ConversationList:
    if request.limit is not None and not 1 <= request.limit < 1 << 63:
        raise InvalidInput("limit", f"must be a positive number, not {request.limit}")
    if not 0 <= request.offset < 1 << 63:
        raise InvalidInput("offset", f"must be 0 or more, not {request.offset}")
    found = await context.store.chats.all(limit=request.limit, offset=request.offset, archived=request.archived)
    return ConversationList(found, context.answers.conversations)


@operation("chats.get", Effect.CHAT)
async def get_conversation(context: Context, request: GetConversation) -> ConversationView:
    chats = context.store.chats
    conversation, messages = await (chats.tree if request.every_branch else chats.thread)(request.id)
    is_answering = context.answers.running(request.id) is not None
    return ConversationView(conversation, messages, await chats.totals(request.id), is_answering)


@operation("chats.create", Effect.CHAT)
async def create_conversation(context: Context, request: CreateConversation) -> ConversationChange:
    new = NewConversation(
        title=titles.UNTITLED if request.title is None else checked_title(request.title),
        model=_checked_model_name(request.model),
        has_automatic_title=request.title is None,
        system_prompt=_checked_text("system_prompt", request.system_prompt),
        sampling=_checked_sampling(request.sampling),
    )
    conversation = await context.store.chats.create(new)
    context.bus.publish(ConversationChanged(conversation))
    return ConversationChange(conversation)


@operation("chats.update", Effect.CHAT)
async def update_conversation(context: Context, request: UpdateConversation) -> ConversationChange:
    changes: ConversationChanges = {}
    if request.title is not None:
        changes["title"] = checked_title(request.title)
        changes["has_automatic_title"] = False
    if request.model is not None:
        changes["model"] = _checked_model_name(request.model)
    if request.uses_default_system_prompt or request.system_prompt is not None:
        changes["system_prompt"] = _checked_text("system_prompt", request.system_prompt)
    if request.sampling is not None:
        changes["sampling"] = _checked_sampling(request.sampling)
    if request.is_pinned is not None:
        changes["is_pinned"] = request.is_pinned
    if request.is_archived is not None:
        changes["is_archived"] = request.is_archived
    conversation = await context.store.chats.update(request.id, **changes)
    context.bus.publish(ConversationChanged(conversation))
    return ConversationChange(conversation)


@operation("chats.delete", Effect.CHAT)
async def delete_conversation(context: Context, request: DeleteConversation) -> DeletedConversation:
    """What is being generated in it ends, what waits for its turn is told that it is gone."""
    await context.store.chats.delete(request.id)
    context.answers.stop(request.id)
    context.bus.publish(ConversationDeleted(request.id))
    return DeletedConversation(request.id)


@operation("chats.choose", Effect.CHAT)
async def choose_branch(context: Context, request: ChooseBranch) -> ConversationView:
    if context.answers.running(request.id) is not None:
        raise Conflict("An answer is being generated in this conversation. Stop it, or wait for its end.")
    await context.store.turns.choose_branch(request.id, request.message_id)
    context.bus.publish(BranchChosen(request.id))
    return await get_conversation(context, GetConversation(request.id))


@operation("chats.image", Effect.CHAT)
async def get_image(context: Context, request: GetImage) -> Image:
    """Raises NotFound."""
    return await context.store.chats.image(request.id)


# --- answers --------------------------------------------------------------------------------------


@operation("chats.send", Effect.CHAT)
async def send_message(context: Context, request: SendMessage) -> AnswerBegun:
    return await _begun(await start_answer(context, request))


@operation("chats.edit", Effect.CHAT)
async def edit_message(context: Context, request: EditMessage) -> AnswerBegun:
    return await _begun(await start_answer(context, request))


@operation("chats.regenerate", Effect.CHAT)
async def regenerate_answer(context: Context, request: RegenerateAnswer) -> AnswerBegun:
    return await _begun(await start_answer(context, request))


async def _begun(answer: RunningAnswer) -> AnswerBegun:
    turn = await answer.wait_until_begun()
    return AnswerBegun(turn.thread[-1], turn.answer)


async def start_answer(context: Context, request: SendMessage | EditMessage | RegenerateAnswer) -> RunningAnswer:
    """An answer that will come when its turn has come, whoever waits for it.

    Raises InvalidInput and NotFound for what can be told before.
    """
    if not isinstance(request, RegenerateAnswer) and not request.message.strip():
        raise InvalidInput("message", "must not be blank")
    conversation = await context.store.chats.get(request.id)
    name = _checked_model_name(conversation.model if request.model is None else request.model)
    turn_request = _turn_request(_answering_model(context, name), request)
    return context.answers.start(request.id, turn_request, model=name, client=request.client)


def running_answer(context: Context, conversation_id: int) -> RunningAnswer | None:
    """The answer that is being generated in a conversation or waits for its turn there."""
    return context.answers.running(conversation_id)


@operation("chats.stop", Effect.CHAT)
async def stop_answer(context: Context, request: StopAnswer) -> StoppedAnswer:
    """Returns when it has ended; what there is of it is kept."""
    await context.store.chats.get(request.id)
    answer = context.answers.stop(request.id)
    return StoppedAnswer(None if answer is None else await answer.wait_until_ended())


def _answering_model(context: Context, name: str) -> Model:
    model = choose(context.names.index, name)
    if model.facts.kind is not ModelKind.CHAT:
        raise InvalidInput("model", f"{model.slug!r} is a model for {model.facts.kind.value}, it cannot chat")
    return model


def _turn_request(model: Model, request: SendMessage | EditMessage | RegenerateAnswer) -> TurnRequest:
    if isinstance(request, RegenerateAnswer):
        return Regenerate(request.message_id)
    text = _checked_text("message", request.message) or ""
    if isinstance(request, EditMessage):
        return Edit(request.message_id, text)
    if request.images and model.mmproj_path is None:
        raise InvalidInput("images", f"model {model.slug!r} cannot see images: it has no projector (mmproj) file")
    return Send(text, _checked_images(request.images))


# --- input ----------------------------------------------------------------------------------------


def checked_title(title: str) -> str:
    """Raises InvalidInput."""
    title = title.strip()
    if not title:
        raise InvalidInput("title", "must not be blank")
    if len(title) > titles.MAX_TITLE_LENGTH:
        raise InvalidInput("title", f"must have at most {titles.MAX_TITLE_LENGTH} characters, not {len(title)}")
    return title


def _checked_model_name(name: str) -> str:
    name = name.strip()
    if not name:
        raise InvalidInput("model", "must not be blank")
    if len(name) > _MAX_NAME_LENGTH:
        raise InvalidInput("model", f"must have at most {_MAX_NAME_LENGTH} characters, not {len(name)}")
    return name


def _checked_text(field_name: str, text: str | None) -> str | None:
    if text is not None and len(text) > MAX_MESSAGE_LENGTH:
        raise InvalidInput(field_name, f"must have at most {MAX_MESSAGE_LENGTH} characters, not {len(text)}")
    return text


def _checked_sampling(sampling: Sampling) -> Sampling:
    for option in fields(Sampling):
        value = getattr(sampling, option.name)
        if value is None or option.name == "stop":
            continue
        low, high = _LIMITS[option.name]
        if not isfinite(value) or not low <= value <= high:
            raise InvalidInput(option.name, f"must be between {low:g} and {high:g}, not {value}")
    stops = sampling.stop or ()
    if len(stops) > _MAX_STOPS or not all(0 < len(stop) <= _MAX_NAME_LENGTH for stop in stops):
        raise InvalidInput("stop", f"must be at most {_MAX_STOPS} texts of 1 to {_MAX_NAME_LENGTH} characters")
    return sampling


def _checked_images(images: tuple[Image, ...]) -> tuple[Image, ...]:
    if len(images) > MAX_IMAGES:
        raise InvalidInput("images", f"must be at most {MAX_IMAGES}, not {len(images)}")
    for index, image in enumerate(images):
        check_image(image, f"images[{index}]")
    return images
