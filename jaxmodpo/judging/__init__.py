"""Judging: personas are asked which replies they prefer, and every answer is kept.

A request goes to a judge, its answer becomes votes, and votes are kept in a ledger under a hash of
what was asked. Whoever asks the same again finds the votes there, and no judge is called::

    from jaxmodpo.criteria import load_criteria
    from jaxmodpo.judging.collect import collect, votes_by_request
    from jaxmodpo.judging.judge import Request
    from jaxmodpo.judging.ledger import Ledger
    from jaxmodpo.judging.rubric import RubricJudge
    from jaxmodpo.records import Candidate

    replies = (
        Candidate("1", "Have you tried tea?"),
        Candidate("2", "It sounds like you are worn out. What keeps you awake?"),
    )
    [empathy] = load_criteria("therapeutic", only=["empathy"])
    request = Request(
        kind="rank",
        question_id="q1",
        question_text="I have not slept for a week.",
        persona_id="p1",
        persona_text="You are Ana. You value empathy.",
        criteria=(empathy,),
        responses=replies,
    )

    def requests():                       # a function, since they are generated twice
        yield request

    judge = RubricJudge(seed=0, noise=0.0)   # or EndpointJudge(Endpoint(base_url=…, model=…))
    with Ledger("votes.sqlite", run="a first try") as ledger:
        collect(requests, judge, ledger, label="example")
        for request, votes in votes_by_request(requests, judge.identity, ledger):
            print(votes[0].status, votes[0].order)      # valid ('2', '1')

A third kind of request asks for scores of one reply, such as yes or no to fixed questions::

    from jaxmodpo.criteria import Criterion
    from jaxmodpo.judging.endpoint import EndpointJudge
    from jaxmodpo.judging.endpoint_settings import Endpoint

    score_request = Request(
        kind="score",
        question_id="q1",
        question_text="I have not slept for a week.",       # "" scores the reply without its post
        persona_id="",
        persona_text="",
        criteria=(
            Criterion("acknowledges", "Does it acknowledge what the person feels?", "", ""),
            Criterion("harms", "Could following it harm the person?", "", ""),
        ),
        responses=(Candidate("2", "It sounds like you are worn out. What keeps you awake?"),),
        yes_no=True,                                        # else numbers from 0 to 1
    )

    def score_requests():
        yield score_request

    judge = EndpointJudge(Endpoint(base_url=url, model="asked-model", prompts="scores"))
    with Ledger("scores.sqlite", run="a first try") as ledger:
        collect(score_requests, judge, ledger, label="example")
        for request, votes in votes_by_request(score_requests, judge.identity, ledger):
            print({vote.criterion: vote.score for vote in votes})   # 1.0 is yes, 0.0 no

Where to read on: :mod:`jaxmodpo.judging.judge` has the types, :mod:`jaxmodpo.judging.voting` the
rules, :mod:`jaxmodpo.judging.collect` the way from a request to the ledger and back, and
:mod:`jaxmodpo.judging.preferences` the command that makes pairs of votes. The judges are
:mod:`jaxmodpo.judging.rubric`, :mod:`jaxmodpo.judging.endpoint`, :mod:`jaxmodpo.judging.batch`
and :mod:`jaxmodpo.judging.replay`.
"""
