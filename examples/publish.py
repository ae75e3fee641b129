import os

from automoderate.notifier import WebSocketNotifier

notifier = WebSocketNotifier(url=os.environ["URL"], api_key=os.environ["API_KEY"])

# What was decided on: a row of your database, or a dict with the same names.
content = {
    "id": "42",
    "project_id": os.environ["PROJECT"],
    "content_type": "text",
    "content_data": "Buy my spam",
    "meta_data": {"author": "user17"},
}
# Who decided: a row or a dict for each moderator, of which the first is shown.
results = [{"moderator_type": "rule", "rule_name": "Spam Detection"}]

notifier.send_update_async(content, decision="rejected", results=results, total_time=0.42)
notifier.close()  # waits until it is sent, for 5 seconds at most
print(f"{notifier.sent} sent, {notifier.failed} failed")
