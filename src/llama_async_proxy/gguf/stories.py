"""What the demo model can say: an opening, then some of the paragraphs."""

from __future__ import annotations

_OPENINGS = """\
Hello! I am the demo model, and I am happy that you are here. I cannot understand your message, because I was \
written by hand and never trained, but I can show you how an answer streams to your screen.
~
Good to meet you! You are talking to a demo model that runs on this very machine. My words are made up in advance, \
so please do not take them as an answer to your question.
~
Hi there! Everything works: your message reached the service, the service woke me up, and now each word travels back \
to you. I only know a few short stories, so let me tell you one of them.
~
Welcome! This text comes from a tiny model without any knowledge. For real answers, put a trained model next to me \
in the models folder, press Scan, and load it."""
_PARAGRAPHS = """\
A local model is a single file on your disk. Once it is there, nothing has to be downloaded again, and no account, \
key or connection is needed. You can unplug the network cable and keep chatting all night.
~
Privacy comes for free when the whole conversation stays at home. Letters, plans, half finished ideas and odd \
questions about your health never leave the room. Nobody else reads them, and nobody can sell what they never \
received.
~
Here are three things worth trying:

- Press **Stop** while I am talking and watch how quickly I fall silent.
- Open the *Dashboard* in a second window and look at the processor while I write.
- Ask the same thing again: I will probably choose another story.
~
Programs can use me as well. The proxy speaks the same language as the big context, so most tools only need a new \
address:

```sh
curl http://127.0.0.1:3000/v1/models
```

That command lists every model which was found so far.
~
The weather outside is always a good subject. This morning began with fog over the river, then the sun came through \
and warmed the old stone bridge. By evening a light wind will carry the smell of rain across our garden.
~
Let us cook something simple. Chop two onions, fry them slowly in butter until they turn golden, and add a pound of \
ripe tomatoes. Twenty minutes later you have a soup that tastes of summer, and some bread is all it still wants.
~
Memory decides which models fit. The weights must be held completely, and every token of context takes some more on \
top. If both graphics card and main memory are full, an idle model is put away before the next one gets its turn.
~
Smaller numbers make smaller files. A weight that needed sixteen bits can often live with four, and most readers \
would not notice the difference. This trick is called quantization, and it is the reason why a laptop can hold \
billions of weights.
~
Once upon a time a lighthouse keeper taught his parrot to count ships. The bird soon preferred to count sandwiches, \
which arrived more regularly. Since then no sandwich on that island has ever been lost, though several ships were.
~
Gardens teach patience better than books do. You sow in April, you wait through May, and in June the first lettuce \
is eaten by a snail. Next year you will plant twice as much: half of it for snails.
~
Speed is measured in tokens per second. A token is a short piece of text, often one word, sometimes only a syllable. \
People read about five words each second, so anything faster than ten already feels fluent.
~
When something breaks, the message should say what to do next. A missing file, a busy port, a full disk: each of \
these has a plain sentence waiting for you. Should you meet a riddle instead, that is a mistake worth reporting.
~
Trains are wonderful places to think. The fields roll past, a stranger opens a newspaper, somebody shares an apple. \
Between two stations you may solve a problem that resisted for weeks at your desk.
~
Several people can share one machine. Requests wait in a fair line, the oldest is served first, and a long answer \
does not block short ones for ever. Models that were not used for a while make room by themselves."""
OPENINGS = tuple(_OPENINGS.split("\n~\n"))
PARAGRAPHS = tuple(_PARAGRAPHS.split("\n~\n"))
