# The program of an agent: an interpreter that stays warm. Lines of JSON come in on standard input,
# one answer for each goes out on standard output. It ends at the end of its input.
#
#   {"hello": X}      answers {"hello": X}
#   {"cell": SOURCE}  runs SOURCE in names that are kept between cells, answers {"value": result}
#                     or {"error": text}. Meanwhile the cell may ask the host for a tool:
#   {"tool": NAME, "argument": A} goes out, {"value": V} comes back.
import json
import sys

answers, sys.stdout = sys.stdout, sys.stderr


def send(message):
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def tool(name, argument):
    send({"tool": name, "argument": argument})
    return json.loads(sys.stdin.readline())["value"]


names = {"tool": tool}
for line in sys.stdin:
    request = json.loads(line)
    if "hello" in request:
        send({"hello": request["hello"]})
        continue
    try:
        names["result"] = None
        exec(compile(request["cell"], "<cell>", "exec"), names)
        send({"value": names["result"]})
    except BaseException as error:
        send({"error": f"{type(error).__name__}: {error}"})
