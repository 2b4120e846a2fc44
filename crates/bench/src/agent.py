# What cells of an agent find when its interpreter is a code context. It is in the template, and so in every agent.
#
#   tool(NAME, ARGUMENT)  asks the host: a display of the type REQUEST goes out; the answer comes as a file.
#   Answer(VALUE)         as the value of a cell: the host gets it as JSON.
import itertools
import json
import os
import time


class Answer:
    def __init__(self, value, mime="application/json"):
        self.value, self.mime = value, mime

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {self.mime: self.value, "text/plain": ""}


def tool(name, argument, request="application/vnd.luminaguard.tool+json", calls=itertools.count(1)):
    path = f"/tmp/.tool-{next(calls)}"
    display(Answer({"tool": name, "argument": argument}, request))
    while True:
        try:
            with open(path) as file:
                value = json.load(file)["value"]
            os.unlink(path)
            return value
        except FileNotFoundError:
            time.sleep(0.0005)
